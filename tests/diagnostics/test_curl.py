"""The curl of fields whose Jacobian is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.diagnostics import curl
from numpyro_score.distributions import EnergyDistribution, ScoreDistribution

KEY = jax.random.key(0)
NUM_ERRORS = 5.0


def matrix(size):
    noise = np.random.default_rng(0).normal(size=(size, size))
    return -np.eye(size) + 0.3 * noise / np.sqrt(size)


@pytest.mark.parametrize("num_probes", [None, 16])
def test_a_linear_field(num_probes):
    field = matrix(20)
    odd, even = np.linalg.norm(field - field.T), np.linalg.norm(field + field.T)
    points = jax.random.normal(KEY, (30, 20))
    jacobian = jnp.asarray(field, float)
    found = curl(lambda x: jacobian @ x, points, num_probes=num_probes, key=KEY)
    tolerance = NUM_ERRORS * found.error + 1e-5
    assert abs(found.value - odd / even) < tolerance
    np.testing.assert_allclose(found.of_jacobian, odd / np.linalg.norm(field), atol=2 * tolerance)
    assert "leaves a bias" in repr(found)


def test_standard_error_over_points_is_that_of_replications():
    def field(x):
        return -x + 0.2 * jnp.sin(x) * jnp.array([x[1], -x[0]])

    runs = [curl(field, x) for x in jax.random.normal(KEY, (60, 50, 2))]
    spread = np.std([run.value for run in runs])
    assert 0.6 < np.mean([run.error for run in runs]) / spread < 1.5


def test_a_gradient_has_none_also_of_an_image_and_with_conditions():
    points = jax.random.normal(KEY, (12, 2, 3))
    energy = EnergyDistribution(lambda x: jnp.sum(jnp.cosh(x)) + x[0, 0] * x[1, 2], (2, 3))
    found = curl(energy, points.reshape(3, 4, 2, 3))
    assert found.value < 1e-5
    assert "small enough for every kernel" in repr(found)
    rotation = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    strength = jnp.linspace(0, 0.2, 12)[:, None]
    conditional = ScoreDistribution(lambda x, c: -x + c * (rotation @ x), (2,), condition=strength)
    expected = np.sqrt(np.mean(np.asarray(strength) ** 2))
    np.testing.assert_allclose(curl(conditional, points[:, :, 0]).value, expected, rtol=1e-4)


def test_refusals():
    points = jax.random.normal(KEY, (12, 2))
    with pytest.raises(ValueError, match="no curl to speak of"):
        curl(jnp.ones_like, points)
    with pytest.raises(ValueError, match="need a key"):
        curl(jnp.sin, points, num_probes=3)
    with pytest.raises(ValueError, match="n of at least 2"):
        curl(jnp.sin, points[:1])
    with pytest.raises(ValueError, match=r"points of shape \(3, 4, 2\) may be 3 events"):
        curl(jnp.sin, points.reshape(3, 4, 2))
    assert curl(lambda x: x[::-1] * jnp.array([1.0, -1.0]), points).of_jacobian == 2.0
