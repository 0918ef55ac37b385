"""The kernels on minibatches have the bias that they state."""

from __future__ import annotations

import blackjax.sgmcmc.diffusions as diffusions
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_score.infer import SGHMC, SGLD, SGNHT
from tests.infer.minibatch_model import gaussian_model, gaussian_posterior
from tests.statistics import NUM_ERRORS, Moments, assert_recovers

pytestmark = pytest.mark.statistics

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
