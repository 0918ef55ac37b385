"""Figures of fits and of runs: losses, energies, swaps, discrepancies."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC

from numpyro_score.diagnostics import kernel_stein_discrepancy
from numpyro_score.infer import MALA
from numpyro_score.infer._levels import Level
from numpyro_score.plotting import plot_energy_trace, plot_ksd, plot_loss, plot_swaps
from numpyro_score.training import FitResult


def fitted(losses, held_out=(), steps=(), stopped="finished"):
    arrays = (np.asarray(a, float) for a in (losses, held_out))
    return FitResult(abs, *arrays, np.asarray(steps, int), len(losses), stopped)


# -- losses ------------------------------------------------------------------------------------


def test_losses_are_means_of_blocks_at_their_ends(figure_axes):
    ax = plot_loss(fitted(np.arange(1001.0), [3, 1, 2], [10, 20, 30]), ax=figure_axes)
    minibatches, held_out, best = ax.lines
    np.testing.assert_array_equal(minibatches.get_xdata()[:3], [6, 12, 18])
    np.testing.assert_array_equal(minibatches.get_ydata()[:3], [2.5, 8.5, 14.5])
    assert len(minibatches.get_xdata()) == 166  # what is left over makes no point
    np.testing.assert_array_equal(held_out.get_xydata(), [[10, 3], [20, 1], [30, 2]])
    np.testing.assert_array_equal(best.get_xydata(), [[20, 1]])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("step", "loss", "")


def test_losses_without_held_out_rows_and_of_a_fit_that_broke_off(figure_axes):
    ax = plot_loss(fitted([1.0, 2.0, np.nan], stopped="non_finite"), ax=figure_axes)
    assert len(ax.lines) == 1
    assert ax.get_title() == "ended at step 3: non_finite"
    assert ax.lines[0].get_label() == "minibatches"


def test_held_out_losses_of_which_none_is_finite_have_no_lowest(figure_axes):
    assert len(plot_loss(fitted([1.0], [np.nan], [1]), ax=figure_axes).lines) == 2


def test_a_fit_that_is_none_is_refused():
    with pytest.raises(TypeError, match="FitResult; got list"):
        plot_loss([1.0, 2.0])
    with pytest.raises(ValueError, match="single step"):
        plot_loss(fitted([]))


# -- energies ----------------------------------------------------------------------------------


def mala(num_chains=2):
    kernel = MALA(potential_fn=lambda z: 0.5 * z**2)
    return MCMC(
        kernel,
        num_warmup=20,
        num_samples=30,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )


@pytest.fixture(scope="module")
def run():
    mcmc = mala()
    mcmc.run(
        jax.random.key(0),
        extra_fields=("potential_energy", "diverging"),
        init_params=jnp.zeros(2),
    )
    return mcmc


def test_energies_are_those_of_each_chain(figure_axes, run):
    ax = plot_energy_trace(run, ax=figure_axes)
    draws = np.asarray(run.get_samples(group_by_chain=True))
    for line, chain in zip(ax.lines, draws, strict=True):
        np.testing.assert_allclose(line.get_ydata(), 0.5 * chain**2, rtol=1e-4, atol=1e-5)
    assert ax.get_ylabel() == "potential energy"


def faked(**fields):
    fields = {name: np.asarray(value) for name, value in fields.items()}
    return SimpleNamespace(
        sampler=None,
        last_state=SimpleNamespace(potential_energy=0.0),
        get_extra_fields=lambda group_by_chain: fields,
    )


def test_divergences_are_marked_where_they_are_and_long_chains_thinned(figure_axes):
    energy = np.arange(5_000.0).reshape(2, 2_500)
    diverging = np.zeros((2, 2_500), bool)
    diverging[1, 7] = True
    ax = plot_energy_trace(faked(potential_energy=energy, diverging=diverging), ax=figure_axes)
    np.testing.assert_array_equal(ax.lines[-1].get_xydata(), [[7, 2_507]])
    assert ax.lines[-1].get_label() == "1 divergences"
    np.testing.assert_array_equal(ax.lines[0].get_xdata()[:3], [0, 3, 6])
    np.testing.assert_array_equal(ax.lines[1].get_ydata()[:2], [2_500, 2_503])


def test_energies_that_are_not_there_are_asked_for(run):
    with pytest.raises(TypeError, match="an MCMC after its run, got dict"):
        plot_energy_trace({})
    with pytest.raises(RuntimeError, match="has not run"):
        plot_energy_trace(mala())
    with pytest.raises(ValueError, match=r"extra_fields=\(\"potential_energy\",\)"):
        plot_energy_trace(faked())
    with pytest.raises(ValueError, match="1 of 3 energies are not finite"):
        plot_energy_trace(faked(potential_energy=[[1.0, np.inf, 2.0]]))


# -- swaps -------------------------------------------------------------------------------------


def exchanged(noise, power, rates, num_swaps=5):
    rates = jnp.asarray(rates)
    state = SimpleNamespace(
        mean_swap_accept_prob=rates,
        num_swaps=jnp.full(rates.shape, num_swaps),
        levels=Level(jnp.asarray(noise), jnp.asarray(power)),
        journeys=SimpleNamespace(round_trips=jnp.array([3, 1_000])[: len(rates)]),
    )
    return SimpleNamespace(sampler=None, last_state=state)


def test_swaps_lie_between_their_levels(figure_axes):
    noise, rates = [[0.0, 1.0, 4.0]] * 2, [[0.2, 0.3], [0.4, 0.5]]
    ax = plot_swaps(exchanged(noise, [[1.0, 1.0, 0.5]] * 2, rates), ax=figure_axes)
    for line, chain in zip(ax.lines, rates, strict=True):
        np.testing.assert_allclose(line.get_xdata(), [np.sqrt(0.5), 2.0], rtol=1e-5)
        np.testing.assert_allclose(line.get_ydata(), chain)
    assert ax.get_xlabel() == "noise level"
    assert ax.get_title() == "round trips: 3, 1,000"


def test_swaps_of_powers_of_the_likelihood(figure_axes):
    ax = plot_swaps(exchanged([[0.0, 0.0]], [[1.0, 0.25]], [[0.5]]), ax=figure_axes)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.5])
    assert ax.get_xlabel() == "power of the likelihood"


def test_swaps_that_nobody_proposed_are_refused(run):
    with pytest.raises(ValueError, match="MALA, which has no swaps: see ReplicaExchange"):
        plot_swaps(run)
    with pytest.raises(ValueError, match="not proposed a swap yet"):
        plot_swaps(exchanged([[0.1, 1.0]], [[1.0, 1.0]], [[0.0]], num_swaps=0))
    with pytest.raises(RuntimeError, match="has not run"):
        plot_swaps(mala())


# -- discrepancies -----------------------------------------------------------------------------


def test_discrepancies_are_those_of_the_first_draws_of_each_chain(figure_axes):
    draws = jax.random.normal(jax.random.key(1), (2, 40, 2)) * jnp.array([1.0, 2.0])[:, None, None]
    ax = plot_ksd(lambda x: -x, draws, lengthscale=1.5, ax=figure_axes)
    lengths = ax.lines[0].get_xdata()
    assert lengths[0] == 20
    assert lengths[-1] == 40
    for line, chain in zip(ax.lines, draws, strict=False):
        alone = kernel_stein_discrepancy(lambda x: -x, chain, lengthscale=1.5)
        np.testing.assert_allclose(line.get_ydata()[-1], float(alone), rtol=1e-5)
    np.testing.assert_allclose(
        ax.lines[-1].get_ydata()[-1] / ax.lines[-1].get_ydata()[0], np.sqrt(0.5), rtol=1e-6
    )
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_discrepancies_of_chains_of_images(figure_axes):
    draws = jax.random.normal(jax.random.key(1), (2, 40, 2, 2))
    lines = plot_ksd(lambda x: -x, draws, lengthscale=1.5, ax=figure_axes).lines
    rows = draws[1].reshape(40, 4)
    alone = kernel_stein_discrepancy(-rows, rows, lengthscale=1.5)
    np.testing.assert_allclose(lines[1].get_ydata()[-1], float(alone), rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 2), (2, 19, 2), (2, 40)])
def test_too_few_draws_or_axes_are_refused(shape):
    with pytest.raises(ValueError, match="num_chains, num_draws"):
        plot_ksd(lambda x: -x, jnp.zeros(shape))


def test_draws_that_do_not_move_are_refused():
    with pytest.raises(ValueError, match="did not move"):
        plot_ksd(lambda x: -x, jnp.ones((2, 40, 2)))
