"""Simulation-based calibration: right kernels pass, planted bugs fail, and the rest is told."""

from functools import partial

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import AIES
from numpyro.infer import HMC as NUMPYRO_HMC

from numpyro_score.diagnostics import (
    expected_coverage,
    simulation_based_calibration,
)
from numpyro_score.diagnostics._replications import Posteriors, effective_sizes
from numpyro_score.diagnostics.simulation_based_calibration import _result
from numpyro_score.distributions import EnergyDistribution
from numpyro_score.infer import MALA, DoublyIntractableError
from numpyro_score.samplers import Langevin

from .calibration_models import (
    energy_model,
    mixture_draw,
    stacked,
)

KEY = jax.random.key(0)
NUM = 200


def normal_model(y=None, scale=1.0):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.deterministic("twice", 2 * mu)
    numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def fixed_step(model, step_size=0.4):
    """A step size that needs no warm-up."""
    return MALA(model, step_size=step_size, adapt_step_size=False, adapt_mass_matrix=False)


def calibrate(model=normal_model, **options):
    defaults = {"observed": "y", "kernel": fixed_step, "num_warmup": 20, "num_replications": 100}
    return simulation_based_calibration(KEY, model, **(defaults | options))


def result_of(truth, draws):
    facts = {"num_draws": next(iter(draws.values())).shape[1], "thinning": 1, "kernel": "MALA"}
    random = np.random.default_rng(0)
    return _result(truth, draws, random, latent=tuple(truth), notes=(), **facts)


@pytest.fixture(scope="module")
def right():
    return calibrate(var_names=["mu", "twice"], thinning=4)


# -- what is computed --------------------------------------------------------------------------


def test_draws_are_of_the_posteriors_and_ranks_of_truths_among_them(right):
    assert right.draws["mu"].shape == (100, 99)
    np.testing.assert_array_equal(
        right.ranks["mu"], np.sum(right.draws["mu"] < right.truth["mu"][:, None], 1)
    )
    np.testing.assert_array_equal(right.ranks["mu"], right.ranks["twice"])
    np.testing.assert_allclose(right.truth["twice"], 2 * right.truth["mu"])
    # Given y the posterior is N(y / 2, 1/2), so that draws and truths correlate by 1/2.
    means = right.draws["mu"].mean(1)
    assert abs(np.var(right.draws["mu"], axis=1).mean() - 0.5) < 0.05
    assert abs(np.corrcoef(means, right.truth["mu"])[0, 1] - np.sqrt(0.5)) < 5 * 0.5 / 10


def test_a_right_kernel_passes(right):
    assert right.value > 0.01
    assert "ranks of 2 components in 100 replications are uniform" in repr(right)
    assert right.kernel == "MALA(normal_model, diagonal metric)"
    assert expected_coverage(KEY, right.draws["mu"], right.truth["mu"]).p_value > 0.01
    (prob, found), *_ = right.coverage()["mu"].items()
    assert abs(found - prob) < 5 * 0.5 / 10


def test_arviz_takes_the_ranks(right):
    import matplotlib as mpl

    mpl.use("Agg")
    data = right.to_arviz()
    values = data["prior_sbc"]["mu"]
    assert values.dims == ("chain", "draw")
    assert 0 < float(values.min()) < float(values.max()) < 1
    assert data["prior_sbc"].attrs["thinning"] == 4
    if "InferenceData" in vars(az):
        az.plot_ecdf(
            values.values.ravel(),
            eval_points=np.linspace(0, 1, 100),
            cdf=lambda p: p,
            difference=True,
            confidence_bands=True,
        )
    else:
        az.plot_ecdf_pit(data)


def test_one_program_serves_all_batches_and_all_thinnings(monkeypatch):
    num_traces, draw = [], Posteriors._draw

    def counted(self, *args):
        num_traces.append(1)
        return draw(self, *args)

    monkeypatch.setattr(Posteriors, "_draw", counted)
    result = calibrate(kernel=partial(fixed_step, step_size=0.05), num_draws=19, batch_size=40)
    assert len(num_traces) == 1
    assert result.thinning > 1
    assert result.ess["mu"] > 0.4 * 19
    assert result.ranks["mu"].shape == (100,)


def test_batches_and_kernels_of_numpyro_and_quantities(right):
    def kernel(model):
        fixed = {"adapt_step_size": False, "adapt_mass_matrix": False}
        return NUMPYRO_HMC(model, trajectory_length=None, num_steps=3, step_size=0.4, **fixed)

    result = calibrate(
        kernel=kernel,
        thinning=1,
        quantities=lambda values, data: {"error": values["mu"] - data["y"]},
    )
    assert result.value > 0.01
    np.testing.assert_array_equal(result.ranks["error"], result.ranks["mu"])
    assert "HMC" in result.kernel


def test_effective_sizes_are_harmonic_means():
    random = np.random.default_rng(0)
    white = random.normal(size=(40, 200))
    walks = np.cumsum(random.normal(size=(40, 200)), 1)
    shy = np.diff(random.normal(size=(40, 201)), axis=1)
    draws = {"white": white, "walks": walks, "shy": shy, "constant": np.ones((40, 200))}
    sizes = effective_sizes(draws)
    assert sizes["shy"] == pytest.approx(200)
    assert 150 < sizes["white"] <= 200
    assert sizes["walks"] < 10
    assert sizes["constant"] == 200
    assert effective_sizes({"still": np.ones((40, 200))})["still"] == 1


def test_constants_and_ties_are_no_fault_of_the_kernel():
    def model(y=None):
        factor = numpyro.sample("factor", dist.LKJCholesky(2, 2.0))
        numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(2), scale_tril=factor), obs=y)

    result = calibrate(
        model,
        kernel=lambda model: MALA(model, step_size=0.3, adapt_mass_matrix=False),
        num_warmup=100,
        thinning=4,
        quantities=lambda values, _: {"large": jnp.float32(values["factor"][1, 0] > 0)},
    )
    assert result.value > 0.01, repr(result)
    assert result.num_stuck == 0
    assert np.isnan(result.p_values["factor"]).tolist() == [[True, True], [False, False]]
    assert "ranks of 3 components" in repr(result)
    assert "2 components are constant and have no rank" in repr(result)
    with pytest.raises(ValueError, match=r"\['one'\], is constant"):
        result_of({"one": np.ones(60)}, {"one": np.ones((60, 20))})


# -- what must be seen -------------------------------------------------------------------------


def test_a_wrong_scale_of_the_likelihood_is_named():
    """The kernel samples another model than the one that data come from."""

    def kernel(model):
        def wrong(data):
            normal_model(data["y"], scale=0.5)

        return fixed_step(wrong)

    result = calibrate(kernel=kernel, thinning=4, num_replications=200)
    assert result.value < 1e-3
    assert "not uniform: 1 fail, mu most, where draws are too narrow" in repr(result)


def test_draws_that_depend_on_each_other_cannot_tell():
    result = calibrate(kernel=partial(fixed_step, step_size=2e-3), thinning=1)
    assert np.isnan(result.value)
    assert "cannot tell; the 99 draws of a chain are worth" in repr(result)
    assert "raise thinning (it was 1)" in repr(result)


def test_chains_that_never_move_are_counted():
    result = calibrate(kernel=partial(fixed_step, step_size=1e6), thinning=1)
    assert result.num_stuck == 100
    assert result.value < 1e-6
    assert "chains that never moved in 100 replications" in repr(result)


def test_quantities_that_are_not_finite_are_refused():
    def broken(values, data):
        return {"root": jnp.sqrt(values["mu"])}

    with pytest.raises(FloatingPointError, match=r"site 'root' is not finite in .* of 100"):
        calibrate(quantities=broken, thinning=1)


def test_draws_that_are_not_finite_make_it_nan(right):
    draws = {"mu": right.draws["mu"].copy()}
    draws["mu"][3, 5] = np.nan
    result = result_of({"mu": right.truth["mu"]}, draws)
    assert np.isnan(result.value)
    assert "cannot tell; draws are not finite in 1 replications" in repr(result)


# -- priors ------------------------------------------------------------------------------------


def short(model=energy_model, **options):
    return calibrate(model, num_replications=50, thinning=1, num_draws=19, **options)


def test_an_energy_asks_for_its_draws_and_takes_arrays_and_functions():
    with pytest.raises(ValueError, match=r"'x' has a density but no sampler.*\*\(2,\)\)"):
        short()
    draws = stacked(mixture_draw, 50)
    result = short(prior={"x": draws})
    np.testing.assert_array_equal(result.truth["x"], draws)
    assert result.draws["theta"].shape == (50, 19, 3, 2)
    with pytest.raises(ValueError, match=r"draws of the shape \(50, 2\), .* got \(49, 2\)"):
        short(prior={"x": draws[:49]})
    with pytest.raises(ValueError, match=r"prior has draws of \['z'\]; the latent sites are"):
        short(prior={"z": draws})


@pytest.mark.statistics
def test_a_sampler_that_is_not_exact_is_told():
    def model(y=None):
        prior = EnergyDistribution(
            lambda x: 0.5 * jnp.sum(x**2), (1,), sampler=Langevin(num_steps=50)
        )
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[0], 1.0), obs=y)

    assert "site 'x' was drawn by its own sampler, not exactly" in repr(short(model))


# -- refusals ----------------------------------------------------------------------------------


def test_a_model_that_a_kernel_refuses_is_refused():
    def model(y=None):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        energy = EnergyDistribution(
            lambda x, c: 0.5 * jnp.sum((x / c) ** 2), (2,), condition=scale[None]
        )
        numpyro.sample("x", energy)
        numpyro.sample("y", dist.Normal(0.0, scale), obs=y)

    with pytest.raises(DoublyIntractableError, match="'x'"):
        short(model, prior={"x": lambda key: jax.random.normal(key, (2,))})


def test_refusals():
    with pytest.raises(ValueError, match="the site 'z', which the model does not have"):
        calibrate(observed="z")
    with pytest.raises(ValueError, match=r"the sites \['y'\] have values already"):
        calibrate(partial(normal_model, 1.0))
    with pytest.raises(ValueError, match="num_replications must be an integer of at least 50"):
        calibrate(num_replications=10)
    with pytest.raises(ValueError, match="num_draws must be an integer of at least 19"):
        calibrate(num_draws=5)
    with pytest.raises(TypeError, match="kernel must make a kernel of one chain"):
        calibrate(kernel=AIES)
    with pytest.raises(TypeError, match="kernel must make a kernel of one chain"):
        calibrate(kernel=lambda model: model)
    with pytest.raises(ValueError, match=r"var_names must be a list of sites of \['mu', 'twice'\]"):
        calibrate(var_names=["nu"])


def test_data_that_overflow_are_refused():
    def model(y=None):
        mu = numpyro.sample("mu", dist.Normal(0.0, 100.0))
        numpyro.sample("y", dist.Normal(jnp.exp(mu), 1.0), obs=y)

    with pytest.raises(FloatingPointError, match="site 'y' is not finite in"):
        calibrate(model)
