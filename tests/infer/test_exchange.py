"""The exchange algorithm is calibrated where Z is known to us and not to it.

The calibration draws parameters from the prior and data given them, starts a chain at those very
parameters, which are a draw of the posterior given the data, and asks whether after many steps they
still are: the exact posterior CDF at the end of the chains is uniform. Any chain that leaves
another density alone drifts away from there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import stats

from numpyro_score.infer import Exchange
from numpyro_score.infer._auxiliary import Auxiliary
from tests.infer.exchange_models import (
    RATE,
    SHAPE,
    Y_NORMAL,
    Y_TILTED,
    draw_located,
    draw_normal,
    draw_tilted,
    normal_model,
    normal_posterior,
    precision_model,
    run,
    tilted_model,
    tilted_posterior,
)
from tests.statistics import Moments, assert_recovers

pytestmark = pytest.mark.statistics

NUM_REPLICATES, NUM_STEPS = 1000, 150
MIN_P_VALUE = 1e-3  # fixed beforehand, as the seeds are


# -- calibration -------------------------------------------------------------------------------


def ends(kernel, z, y, seed, highest_acceptance):
    """Where chains are after some steps, each of them with data of its own."""

    def simulate(rng_key, z, y):
        state = kernel.init(rng_key, 0, {"theta": z}, (y,), {})
        step = lambda state, _: (kernel.sample(state, (y,), {}), state.accept_prob)  # noqa: E731
        state, accept_prob = jax.lax.scan(step, state, None, length=NUM_STEPS)
        return state.z["theta"], accept_prob.mean()

    end, accept_prob = jax.jit(jax.vmap(simulate))(
        random.split(random.key(seed), NUM_REPLICATES), z, y
    )
    assert 0.15 < accept_prob.mean() < highest_acceptance
    assert np.mean(end == z) < 0.02, "the chains move"
    return np.asarray(end, np.float64)


def precision_p_value(num_rows=5, highest_acceptance=0.7):
    """Of the Kolmogorov-Smirnov test that the posterior CDF is uniform where chains end."""
    prior_key, data_key = random.split(random.key(1))
    theta = random.gamma(prior_key, SHAPE, (NUM_REPLICATES,)) / RATE
    noise = random.normal(data_key, (NUM_REPLICATES, num_rows))
    y = noise / jnp.sqrt(theta)[:, None]
    kernel = Exchange(precision_model, {"y": draw_normal}, adapt_step_size=False)
    end = np.exp(ends(kernel, jnp.log(theta), y, 2, highest_acceptance))
    rate = RATE + 0.5 * np.sum(np.asarray(y, np.float64) ** 2, 1)
    cdf = stats.gamma.cdf(end, SHAPE + num_rows / 2, scale=1 / rate)
    return stats.kstest(cdf, "uniform").pvalue


def tilted_p_value(num_rows=10, highest_acceptance=0.7):
    prior_key, data_key = random.split(random.key(3))
    theta = 3.0 * random.normal(prior_key, (NUM_REPLICATES,))
    u = random.uniform(data_key, (num_rows, NUM_REPLICATES))
    y = (jnp.log1p(u * jnp.expm1(theta)) / theta).T
    kernel = Exchange(tilted_model, {"y": draw_tilted}, step_size=2.0, adapt_step_size=False)
    end = ends(kernel, theta, y, 4, highest_acceptance)
    grid, weights = tilted_posterior(np.asarray(y, np.float64).sum(1), num_rows)
    cdf = [np.interp(x, grid, c) for x, c in zip(end, weights.cumsum(1), strict=True)]
    return stats.kstest(cdf, "uniform").pvalue


@pytest.mark.parametrize("p_value", [precision_p_value, tilted_p_value])
def test_the_posterior_stays_the_posterior(p_value):
    assert p_value() > MIN_P_VALUE


_RATIO = Auxiliary.log_ratio
BUGS = {
    # x ~ p(x | θ) in the place of θ'.
    "drawn at the current values": lambda self, key, here, there: -_RATIO(self, key, there, here),
    "ratio inverted": lambda *args: -_RATIO(*args),
    # What any other kernel would sample.
    "auxiliary data dropped": lambda *args: jnp.zeros(()),
}


@pytest.mark.parametrize("bug", BUGS)
def test_catches(bug, monkeypatch):
    monkeypatch.setattr(Auxiliary, "log_ratio", BUGS[bug])
    # A wrong ratio may accept nearly everything.
    assert precision_p_value(highest_acceptance=1.0) < 1e-6
    if bug == "ratio inverted":
        assert tilted_p_value(highest_acceptance=1.0) < 1e-6


# -- tuned chains ------------------------------------------------------------------------------


def test_a_tuned_chain_recovers_the_posterior_at_its_target_acceptance():
    grid, weights = tilted_posterior(np.float64(Y_TILTED.sum()), len(Y_TILTED))
    mean = weights @ grid
    exact = Moments(mean, np.sqrt(weights @ (grid - mean) ** 2))
    mcmc = run(Exchange(tilted_model, {"y": draw_tilted}), Y_TILTED)
    assert_recovers(mcmc.get_samples(group_by_chain=True)["theta"], exact)
    extra = mcmc.get_extra_fields()
    assert abs(extra["accept_prob"].mean() - 0.234) < 0.05
    assert not extra["diverging"].any()


@pytest.mark.parametrize("options", [{"dense_mass": True}, {"adaptation": "pooled"}])
def test_metrics_without_scores_fit_two_parameters(options):
    mean, covariance = normal_posterior()
    kernel = Exchange(normal_model, {"y": draw_located}, **options)
    mcmc = run(kernel, Y_NORMAL, num_samples=8000)
    draws = mcmc.get_samples(group_by_chain=True)
    draws = np.stack([draws["loc"], draws["log_scale"]], -1)
    assert_recovers(draws, Moments(mean, np.sqrt(np.diagonal(covariance))))
    metric = np.asarray(mcmc.last_state.adapt_state.inverse_mass_matrix)
    metric = metric if "adaptation" in options else metric[0]  # a pool has one
    found = metric if metric.ndim == 2 else np.diag(metric)
    # Its level is the step size's affair.
    ratio = (found[0, 0] / found[1, 1]) / (covariance[0, 0] / covariance[1, 1])
    assert 0.4 < ratio < 2.5
    if metric.ndim == 2:
        ours, exact = (c[0, 1] / np.sqrt(c[0, 0] * c[1, 1]) for c in (found, covariance))
        assert abs(ours - exact) < 0.3
    assert abs(mcmc.get_extra_fields()["accept_prob"].mean() - 0.234) < 0.06
