"""Annealed importance sampling against normalizers in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.samplers import annealed_importance

FACTOR = np.array([[1.5, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.4, 0.3, 0.5]])
MEAN = np.array([1.0, -2.0, 0.5])
LOG_Z = 1.5 * np.log(2 * np.pi) + np.log(np.diag(FACTOR)).sum()


def gaussian(v):
    return -0.5 * jnp.sum(jnp.linalg.solve(jnp.asarray(FACTOR), v - MEAN) ** 2)


def z_scores(run, num_seeds=40):
    """Errors of Z over their standard deviation, over seeds: of mean 0 and variance 1."""
    log_weights = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), num_seeds))
    weights = np.exp(np.asarray(log_weights, float) - LOG_Z)
    return (weights.mean(1) - 1) / (weights.std(1) / np.sqrt(weights.shape[1]))


def run(key):
    return annealed_importance(key, gaussian, 3, num_particles=300, num_temperatures=60).log_weights


def test_the_mean_weight_is_z_and_its_error_is_known():
    z = z_scores(run)
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert 0.6 < z.std() < 1.5


def test_a_bug_is_seen():
    """An estimate that is off by some percent does not pass for one."""
    z = z_scores(lambda key: 0.97 * run(key))
    assert abs(z.mean()) > 4 / np.sqrt(len(z))


def test_particles_are_draws_once_they_are_weighted():
    annealed = jax.jit(
        lambda key: annealed_importance(
            key, gaussian, 3, num_particles=4_000, num_temperatures=100, num_moves=2
        )
    )(jax.random.key(1))
    weights = jax.nn.softmax(annealed.log_weights)
    ess = 1 / np.sum(np.asarray(weights) ** 2)
    assert ess > 1_000
    white = np.linalg.solve(FACTOR, (np.asarray(annealed.positions) - MEAN).T).T
    np.testing.assert_allclose(weights @ white, 0.0, atol=5 / np.sqrt(ess))
    np.testing.assert_allclose(weights @ white**2, 1.0, atol=5 * np.sqrt(2 / ess))


@pytest.mark.parametrize("num_temperatures", [5, 40])
def test_more_temperatures_waste_fewer_weights(num_temperatures):
    log_weights = annealed_importance(
        jax.random.key(2), gaussian, 3, num_particles=500, num_temperatures=num_temperatures
    ).log_weights
    weights = np.asarray(jax.nn.softmax(log_weights))
    ess = 1 / np.sum(weights**2)
    assert (ess > 150) == (num_temperatures == 40)
