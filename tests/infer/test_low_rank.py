"""A metric of standard deviations and a few directions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.adaptation.metric_estimators import fisher_score_low_rank
from blackjax.mcmc.metrics import LowRankInverseMassMatrix
from jax import random
from numpyro.infer import MCMC

from numpyro_score.infer import HMC, MALA, _low_rank
from numpyro_score.infer._low_rank import low_rank_solution, window_strides
from numpyro_score.infer._schedule import build_schedule
from numpyro_score.infer._whitening import LowRankWhitening
from tests.statistics import Moments, assert_recovers

SIZE, RANK = 60, 3
VARIANCES = np.array([400.0, 100.0, 0.01])  # along three directions, in standard deviations


def spiked_gaussian(size=SIZE, seed=0):
    """Return L and the covariance L Lᵀ of a Gaussian of three spikes and very unequal scales."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.normal(size=(size, RANK)))
    scale = rng.permutation(np.geomspace(0.1, 10, size))
    root = scale[:, None] * (np.eye(size) + (vectors * (np.sqrt(VARIANCES) - 1)) @ vectors.T)
    return root, root @ root.T


def full(metric):
    """Write a metric of low rank as a matrix."""
    sigma, vectors, values = (np.asarray(leaf, np.float64) for leaf in metric)
    inner = np.eye(len(sigma)) + (vectors * (values - 1)) @ vectors.T
    return sigma[:, None] * inner * sigma


def condition_number(covariance, metric):
    eigenvalues = np.abs(np.linalg.eigvals(np.linalg.solve(metric, covariance)))
    return eigenvalues.max() / eigenvalues.min()


# -- the solution ------------------------------------------------------------------------------


def of_blackjax(draws, covariance, max_rank):
    """Return BlackJAX's metric: the same problem by other algebra, in double precision."""
    scores = -draws @ np.linalg.inv(covariance)
    with jax.enable_x64(True):
        metric = fisher_score_low_rank(jnp.asarray(draws), jnp.asarray(scores), max_rank)
        return full(metric)


@pytest.mark.parametrize("seed", range(3))
def test_solution_is_that_of_blackjax(seed):
    """Where the rank is full, so that both search the same space and keep the same directions."""
    root, covariance = spiked_gaussian(seed=seed)
    draws = np.random.default_rng(seed).normal(size=(200, SIZE)) @ root.T
    scores = -draws @ np.linalg.inv(covariance)
    scale, vectors, stretch = low_rank_solution(
        jnp.asarray(draws, jnp.float32), jnp.asarray(scores, jnp.float32), SIZE
    )
    ours, theirs = full((scale, vectors, stretch**2)), of_blackjax(draws, covariance, SIZE)
    np.testing.assert_allclose(np.linalg.eigvals(np.linalg.solve(theirs, ours)), 1.0, atol=0.02)
    assert np.any(stretch > 1)
    assert np.any(stretch < 1)


def test_rows_without_correlation_leave_no_direction():
    draws = np.random.default_rng(0).normal(size=(200, SIZE)) * 3
    *_, stretch = low_rank_solution(jnp.asarray(draws), jnp.asarray(-draws / 9), RANK)
    np.testing.assert_array_equal(stretch, 1.0)


def test_whitening_is_the_algebra_that_it_says():
    rng = np.random.default_rng(0)
    vectors, _ = np.linalg.qr(rng.normal(size=(5, 2)))
    whitening = LowRankWhitening(
        jnp.asarray(rng.uniform(0.5, 2, 5)), jnp.asarray(vectors.T), jnp.array([3.0, 0.5])
    )
    factor = np.stack([whitening.unwhiten(e) for e in jnp.eye(5)], axis=1)
    rows = jnp.asarray(rng.normal(size=(4, 5)))
    np.testing.assert_allclose(full(whitening.covariance()), factor @ factor.T, rtol=1e-4)
    np.testing.assert_allclose(whitening.whiten(rows) @ factor.T, rows, atol=1e-5)
    np.testing.assert_allclose(whitening.whiten_gradient(rows), rows @ factor, atol=1e-5)


@pytest.mark.parametrize("num_warmup", [0, 1, 7, 100, 1000])
@pytest.mark.parametrize("num_rows", [1, 10, 64])
def test_every_window_fills_half_of_its_rows_or_all_its_steps(num_warmup, num_rows):
    schedule = build_schedule(num_warmup)
    strides = window_strides(schedule, num_rows)
    assert strides.shape == (num_warmup,)
    start = 0
    for end in np.flatnonzero(schedule.ends_window) + 1:
        assert len(set(strides[start:end])) == 1
        filled = -(-(end - start) // strides[start])
        assert min(num_rows, end - start) / 2 <= filled <= num_rows
        start = end


# -- in the kernel -----------------------------------------------------------------------------


def adapted(kernel_cls=MALA, num_chains=4, num_samples=1000, **options):
    """Return the condition number that each chain is left with, its acceptance, and its draws.

    Draws are in coordinates in which they are standard normal.
    """
    root, covariance = spiked_gaussian()
    inverse = jnp.asarray(np.linalg.inv(root), float)
    kernel = kernel_cls(potential_fn=lambda z: 0.5 * jnp.sum((inverse @ z) ** 2), **options)
    mcmc = MCMC(
        kernel,
        num_warmup=1000,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = random.uniform(random.key(1), (num_chains, SIZE), minval=-2.0, maxval=2.0)
    mcmc.run(random.key(0), init_params=start, extra_fields=("accept_prob",))
    metric = mcmc.last_state.adapt_state.inverse_mass_matrix
    if not isinstance(metric, LowRankInverseMassMatrix):
        metrics = [np.diag(variances) for variances in np.asarray(metric, np.float64)]
    elif metric.sigma.ndim == 1:
        metrics = [full(metric)]
    else:
        metrics = [full([leaf[chain] for leaf in metric]) for chain in range(num_chains)]
    acceptance = mcmc.get_extra_fields(group_by_chain=True)["accept_prob"].mean(1)
    draws = mcmc.get_samples(group_by_chain=True) @ inverse.T
    condition_numbers = np.array([condition_number(covariance, m) for m in metrics])
    return condition_numbers, np.asarray(acceptance), np.asarray(draws)


@pytest.fixture(scope="module")
def attainable():
    """The condition number that BlackJAX's metric leaves after 20,000 independent draws."""
    root, covariance = spiked_gaussian()
    draws = np.random.default_rng(0).normal(size=(20_000, SIZE)) @ root.T
    return condition_number(covariance, of_blackjax(draws, covariance, 5))


@pytest.mark.parametrize(("adaptation", "factor"), [("per-chain", 3), ("pooled", 2)])
def test_spikes_are_found(adaptation, factor, attainable):
    condition_numbers, acceptance, draws = adapted(
        max_rank=5, adaptation=adaptation, num_samples=12_000
    )
    assert condition_numbers.max() < factor * attainable, condition_numbers
    assert abs(acceptance.mean() - 0.574) <= 0.08, acceptance
    assert_recovers(draws, Moments(np.zeros(SIZE), np.ones(SIZE)))


def test_a_trajectory_takes_the_metric_too(attainable):
    condition_numbers, acceptance, _ = adapted(HMC, num_samples=200, num_steps=4, max_rank=5)
    assert condition_numbers.max() < 3 * attainable, condition_numbers
    assert abs(acceptance.mean() - 0.8) <= 0.1, acceptance


def test_a_diagonal_metric_leaves_the_spikes(attainable):
    condition_numbers, *_ = adapted(num_samples=1)
    assert condition_numbers.min() > 100 * attainable


def test_draws_in_place_of_scores_would_be_noticed(monkeypatch, attainable):
    """A planted bug: the solution for draws and scores that have changed places."""

    def swapped(draws, scores, max_rank):
        return low_rank_solution(scores, draws, max_rank)

    monkeypatch.setattr(_low_rank, "low_rank_solution", swapped)
    condition_numbers, *_ = adapted(num_samples=1, max_rank=5)
    assert condition_numbers.max() > 100 * attainable


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_rank": 0}, ValueError),
        ({"max_rank": 2.5}, ValueError),
        ({"max_rank": 2, "dense_mass": True}, ValueError),
    ],
)
def test_what_is_no_rank_is_refused(options, error):
    with pytest.raises(error, match=r"max_rank|dense"):
        MALA(potential_fn=lambda z: 0.5 * jnp.sum(z**2), **options)


def test_more_directions_than_parameters_are_all_of_them():
    kernel = MALA(potential_fn=lambda z: 0.5 * jnp.sum(z**2), max_rank=50)
    metric = kernel.init(random.key(0), 100, jnp.ones(3), (), {}).adapt_state.inverse_mass_matrix
    np.testing.assert_allclose(full(metric), np.eye(3))
    assert repr(kernel) == "MALA(<lambda>, metric of rank 50)"


def test_a_warmup_too_short_for_the_rank_is_told():
    kernel = MALA(potential_fn=lambda z: 0.5 * jnp.sum(z**2), max_rank=20)
    with pytest.warns(UserWarning, match="40 directions takes 80 moves"):
        kernel.init(random.key(0), 50, jnp.ones(60), (), {})
