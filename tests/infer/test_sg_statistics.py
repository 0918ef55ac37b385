"""Estimates from minibatches are unbiased, and the kernels have the bias that they state."""

from __future__ import annotations

import functools
import itertools

import blackjax.sgmcmc.diffusions as diffusions
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from jax.flatten_util import ravel_pytree

from numpyro_score.distributions import EnergyDistribution, ScoreDistribution
from numpyro_score.infer import SGHMC, SGLD, SGNHT
from numpyro_score.infer._plates import draw_subset
from tests.infer.minibatch_model import gaussian_model, gaussian_posterior
from tests.statistics import NUM_ERRORS, Moments, assert_recovers

# -- estimates ---------------------------------------------------------------------------------

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), float)


def nested(x):
    """Rows and columns subsample; the prior and the plate ``rows`` alone have terms too."""
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", 6, subsample_size=4, dim=-2) as rows:
        numpyro.sample("first", dist.Normal(loc, 2.0), obs=x[rows, :1])
        with numpyro.plate("columns", 4, subsample_size=3, dim=-1) as columns:
            taken = x[rows][:, columns]
            numpyro.sample("x", dist.StudentT(3.0, loc, scale), obs=taken)


def nested_by_subsample(x):
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", 6, subsample_size=4, dim=-2):
        numpyro.sample("first", dist.Normal(loc, 2.0), obs=numpyro.subsample(x[:, :1], 0))
        with numpyro.plate("columns", 4, subsample_size=3, dim=-1):
            numpyro.sample("x", dist.StudentT(3.0, loc, scale), obs=numpyro.subsample(x, 0))


def learned(x):
    """The same posterior, of a prior known by its score, and observations by their energy."""
    loc = numpyro.sample("loc", ScoreDistribution(lambda z: -z / 4, (1,)))[0]
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", 6, subsample_size=4, dim=-2) as rows:
        first = EnergyDistribution(
            lambda x, c: 0.5 * ((x - c) / 2) ** 2,
            (),
            condition=loc,
            condition_event_dim=0,
            log_normalizer=np.log(2 * np.sqrt(2 * np.pi)),
        )
        numpyro.sample("first", first, obs=x[rows, :1])
        with numpyro.plate("columns", 4, subsample_size=3, dim=-1) as columns:
            numpyro.sample("x", dist.StudentT(3.0, loc, scale), obs=x[rows][:, columns])


def nested_in_full(x):
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", 6, dim=-2):
        numpyro.sample("first", dist.Normal(loc, 2.0), obs=x[:, :1])
        with numpyro.plate("columns", 4, dim=-1):
            numpyro.sample("x", dist.StudentT(3.0, loc, scale), obs=x)


def without_scale(x):
    """The planted bug: N / B is dropped from both plates."""
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", 6, subsample_size=4, dim=-2) as rows:
        with numpyro.handlers.scale(scale=4 / 6):
            numpyro.sample("first", dist.Normal(loc, 2.0), obs=x[rows, :1])
        columns_plate = numpyro.plate("columns", 4, subsample_size=3, dim=-1)
        with columns_plate as columns, numpyro.handlers.scale(scale=4 / 6 * 3 / 4):
            numpyro.sample("x", dist.StudentT(3.0, loc, scale), obs=x[rows][:, columns])


def every_minibatch():
    """All 15 × 4 minibatches of ``nested``, each as likely as any other."""
    pairs = list(
        itertools.product(itertools.combinations(range(6), 4), itertools.combinations(range(4), 3))
    )
    return {
        "rows": jnp.array([rows for rows, _ in pairs]),
        "columns": jnp.array([columns for _, columns in pairs]),
    }


Z = {"loc": jnp.array(0.4), "scale": jnp.array(-0.2)}


@functools.cache
def estimates(model, centre=None):
    """Mean and variance of all estimates at one z, and what a pass over the data says."""
    kernel = SGLD(model, step_size=1.0)
    target, z = kernel._build_target(random.key(0), None, (X,), {})
    target = target.potential_fn((X,), {})
    flat, unravel = ravel_pytree({name: jnp.reshape(Z[name], z[name].shape) for name in Z})

    @jax.jit
    def evaluate():
        control = None if centre is None else target.control_at(unravel, jnp.array(centre))
        estimate = target.estimator(unravel, control)
        values = jax.vmap(lambda rows: estimate(flat, rows))(every_minibatch())
        return values, target.from_all_data(unravel, flat)

    values, full = evaluate()
    scores = np.asarray(values.score)
    return float(values.logdensity.mean()), scores.mean(0), scores.var(0), full


@functools.cache
def in_full():
    """Log density and score of all data, by NumPyro."""
    potential_fn = numpyro.infer.util.initialize_model(
        random.key(0), nested_in_full, model_args=(X,)
    ).potential_fn
    value, grad = jax.jit(jax.value_and_grad(potential_fn))(Z)
    return -float(value), -np.array([grad["loc"], grad["scale"]])


def assert_unbiased(model, centre=None):
    logdensity, score, _, _ = estimates(model, centre)
    # Z of a density that is known by its score is not in it.
    prior = -np.log(2 * np.sqrt(2 * np.pi)) if model is learned else 0.0
    np.testing.assert_allclose(logdensity, in_full()[0] - prior, rtol=1e-5)
    np.testing.assert_allclose(score, in_full()[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [nested, nested_by_subsample, learned])
def test_estimates_have_the_full_gradient_as_their_mean_over_all_minibatches(model):
    assert_unbiased(model)
    assert (estimates(model)[2] > 0.1).all(), "or there is nothing to average"


def test_catches_a_dropped_scale():
    with pytest.raises(AssertionError, match="Mismatched elements"):
        assert_unbiased(without_scale)


def test_a_pass_over_all_data_in_blocks_is_the_full_gradient():
    full = estimates(nested)[3]
    np.testing.assert_allclose(full.logdensity, in_full()[0], rtol=1e-5)
    np.testing.assert_allclose(full.score, in_full()[1], rtol=1e-4, atol=1e-4)


def test_control_variates_are_unbiased_anywhere_and_quiet_near_their_centre():
    near, far = (0.45, -0.15), (3.0, 1.5)
    assert_unbiased(nested, near)
    assert_unbiased(nested, far)
    assert (estimates(nested, near)[2] < 0.02 * estimates(nested)[2]).all()


def test_every_subset_is_drawn_as_often_as_any_other():
    num = 15_000
    keys = random.split(random.key(0), num)
    subsets = np.sort(np.asarray(jax.jit(jax.vmap(lambda k: draw_subset(k, 6, 4)))(keys)), axis=1)
    found, counts = np.unique(subsets, axis=0, return_counts=True)
    assert found.tolist() == [list(c) for c in itertools.combinations(range(6), 4)]
    error = np.sqrt(num / 15 * (14 / 15))
    assert np.abs(counts - num / 15).max() < NUM_ERRORS * error


# -- stationary distributions ------------------------------------------------------------------

POSTERIOR = gaussian_posterior(100, 2, 1.0)
# A posterior of standard deviation 1, which is what the thermostat's own inertia is made for.
ROUND = gaussian_posterior(100, 8, 10.0)


def run(cls, data=POSTERIOR, *, num_warmup=200, num_samples=4000, **options):
    """Draws of 4 chains that start in the middle, the extra fields, and the last state.

    One bare loop: all that NumPyro's MCMC does around it takes longer to compile than it takes.
    """
    kernel = cls(gaussian_model, **options)
    keys, args = random.split(random.key(0), 4), (data.y, data.noise)
    start = {"loc": jnp.broadcast_to(jnp.asarray(data.mean, float), (4, len(data.mean)))}
    fields = ("noise_ratio", "gradient_variance", *(("xi",) if issubclass(cls, SGNHT) else ()))

    @jax.jit
    def draw():
        def step(state, _):
            state = kernel.sample(state, args, {})
            return state, (state.z["loc"], {name: getattr(state, name) for name in fields})

        state = kernel.init(keys, num_warmup, start, args, {})
        return jax.lax.scan(step, state, length=num_warmup + num_samples)

    state, out = draw()
    draws, extra = jax.tree.map(lambda x: np.swapaxes(x, 0, 1)[:, num_warmup:], out)
    return draws, extra, state


def assert_variance(draws, variance, data=POSTERIOR):
    assert_recovers(draws, Moments(data.mean, np.sqrt(variance)))


def sgld_variance(step_size, minibatch_variance, precision=POSTERIOR.precision):
    """Of z' = z - ε (A z + e) + √(2ε) ξ, with A the precision and Var e = V."""
    numerator = 1 + step_size * minibatch_variance / 2
    return numerator / (1 - step_size * precision / 2) / precision


def test_sgld_has_the_bias_that_its_docstring_states():
    step_size = 2e-3
    draws, extra, _ = run(SGLD, step_size=step_size)
    variance = POSTERIOR.gradient_variance
    assert_variance(draws, sgld_variance(step_size, variance))
    with pytest.raises(AssertionError, match="sd is"):
        assert_variance(draws, 1 / POSTERIOR.precision)

    # A mean of 200 squares of normals, two coordinates, four chains.
    measured = np.asarray(extra["gradient_variance"][:, -1])
    error = variance * np.sqrt(2 / 200)
    assert np.abs(measured - variance).max() < NUM_ERRORS * error
    assert abs(measured.mean() - variance) < NUM_ERRORS * error / np.sqrt(measured.size)
    largest = measured.max(-1)
    np.testing.assert_allclose(extra["noise_ratio"][:, -1], step_size * largest / 2, rtol=1e-5)


def test_control_variates_take_the_noise_of_the_minibatches_away():
    """On a Gaussian entirely: its gradient is linear."""
    step_size = 2e-3
    draws, extra, state = run(SGLD, step_size=step_size, control_variate="map")
    np.testing.assert_allclose(state.control.centre, POSTERIOR.mean, atol=1e-3)
    assert_variance(draws, sgld_variance(step_size, 0.0))
    assert extra["noise_ratio"].max() < 1e-6


def test_catches_noise_of_the_wrong_size(monkeypatch):
    """√ε for √(2ε)."""
    right = diffusions.generate_gaussian_noise
    monkeypatch.setattr(
        diffusions, "generate_gaussian_noise", lambda key, x: right(key, x) / jnp.sqrt(2.0)
    )
    draws, *_ = run(SGLD, step_size=2e-3)
    with pytest.raises(AssertionError, match="sd is"):
        assert_variance(draws, sgld_variance(2e-3, POSTERIOR.gradient_variance))


def sghmc_variance(step_size, alpha, beta, num_steps, data):
    """Variance of z where a fresh momentum is followed by steps that are linear in (z, p)."""
    matrix = np.array([[1, step_size], [-step_size * data.precision, 1 - alpha * step_size]])
    noise = step_size * (2 * alpha - step_size * beta) + step_size**2 * data.gradient_variance
    power, total = np.eye(2), np.zeros((2, 2))
    for _ in range(num_steps):
        total = matrix @ total @ matrix.T + np.diag([0, noise])
        power = matrix @ power
    return (power[0, 1] ** 2 + total[0, 0]) / (1 - power[0, 0] ** 2)


# Half of the noise is known, so that the formula is wrong where either half is.
SGHMC_OPTIONS = {
    "step_size": 0.03,
    "alpha": 20.0,
    "beta": 0.5 * POSTERIOR.gradient_variance,
    "num_integration_steps": 5,
    "num_samples": 2000,
}
SGHMC_VARIANCE = sghmc_variance(0.03, 20.0, SGHMC_OPTIONS["beta"], 5, POSTERIOR)


def test_sghmc_has_the_variance_of_its_linear_recursion():
    draws, extra, _ = run(SGHMC, **SGHMC_OPTIONS)
    assert_variance(draws, SGHMC_VARIANCE)
    with pytest.raises(AssertionError, match="sd is"):
        assert_variance(draws, 1 / POSTERIOR.precision)
    ratio = 0.03 * 0.5 * POSTERIOR.gradient_variance / 40
    largest = np.asarray(extra["noise_ratio"][:, -1])
    assert np.abs(largest - ratio).max() < NUM_ERRORS * 0.75 * np.sqrt(2 / 100)


def test_catches_one_minibatch_for_all_integration_steps():
    """As in BlackJAX's own kernel."""

    class OneMinibatch(SGHMC):
        def _move(self, rng_key, z, state, step_size, evaluate):
            key, batch_key = random.split(rng_key)

            def same(_, z):
                return evaluate(batch_key, z)

            return super()._move(key, z, state, step_size, same)

    draws, *_ = run(OneMinibatch, **SGHMC_OPTIONS)
    with pytest.raises(AssertionError, match="sd is"):
        assert_variance(draws, SGHMC_VARIANCE)


def thermostat(step_size, alpha, noise_variance, z_variance, dim):
    """Mean of ξ where E|p|² stands still at d, with Var ξ = 1 / d and precision 1."""
    noise = 2 * alpha * step_size + step_size**2 * (noise_variance + z_variance)
    xi = alpha
    for _ in range(100):
        drift = (1 - step_size * xi) * step_size**2 + step_size**2 * (xi**2 + 1 / dim)
        xi = (noise + drift) / (2 * step_size)
    return xi


SGNHT_OPTIONS = {"step_size": 0.1, "alpha": 1.0, "num_warmup": 1000, "num_samples": 12_000}


def sgnht_variance(xi):
    """E|p|² = d exactly, because ξ has a mean; with it the rest follows from the recursion."""
    return (1 - xi * 0.1 / 2 + 0.1**2 / 2) / ROUND.precision


def test_sgnht_takes_the_noise_up_in_its_thermostat():
    """The posterior is right to O(ε), at noise that makes the momenta half as hot again."""
    draws, extra, _ = run(SGNHT, ROUND, **SGNHT_OPTIONS)
    xi = float(extra["xi"].mean())
    assert_variance(draws, sgnht_variance(xi), ROUND)
    z_variance = sgnht_variance(xi) * ROUND.precision
    settled = thermostat(0.1, 1.0, ROUND.gradient_variance, z_variance, 8)
    assert abs(xi - settled) < 0.1
    assert settled - thermostat(0.1, 1.0, 0.0, z_variance, 8) > 0.4, "or it tells nothing"


def test_catches_a_thermostat_that_stands_still():
    class Frozen(SGNHT):
        def _move(self, rng_key, z, state, *args):
            move = super()._move(rng_key, z, state, *args)
            return move._replace(carry=move.carry | {"xi": state.xi})

    draws, *_ = run(Frozen, ROUND, **SGNHT_OPTIONS)
    with pytest.raises(AssertionError, match="sd is"):
        assert_variance(draws, sgnht_variance(1.0), ROUND)
