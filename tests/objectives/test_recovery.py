"""A Gaussian with free precision and mean, fitted to data, recovers both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from numpyro_score.networks import as_score
from numpyro_score.objectives import DenoisingScoreMatching, ExplicitScoreMatching

NUM_ROWS = 40_000
# The relative error (Frobenius) of a precision fitted by either loss is √(d / n) times a factor of
# order 1 at a noise as large as the data: 1.6 % in 10 dimensions.
TOLERANCE = 0.05


def truth(dim):
    """Mean and covariance with variances from 0.5 to 2 and neighbours correlated."""
    variances = np.geomspace(0.5, 2.0, dim)
    distance = np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    return np.linspace(-2.0, 3.0, dim), 0.4**distance * np.sqrt(np.outer(variances, variances))


def energy(params, x):
    precision = (params["A"] + params["A"].T) / 2
    return x @ precision @ x / 2 - params["b"] @ x


NETWORKS = {
    "energy": lambda p: lambda x: energy(p, x),
    "score of an energy": lambda p: as_score(lambda x: energy(p, x)),
    "score": lambda p: lambda x: p["b"] - p["A"] @ x,
}


def minimize(loss, params):
    """Minimize a quadratic by one Newton step on the full batch."""
    flat, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda flat: loss(unravel(flat)))
    hessian = jax.jit(
        lambda: jax.lax.map(
            lambda v: jax.jvp(gradient, (flat,), (v,))[1], jnp.eye(len(flat), dtype=flat.dtype)
        )
    )()
    # Least squares, because an energy does not see the antisymmetric part of A. The cut lies far
    # above the rounding errors of float32 and far below the smallest curvature.
    step = np.linalg.lstsq(
        np.asarray(hessian, float), np.asarray(gradient(flat), float), rcond=1e-4
    )
    return unravel(flat - jnp.asarray(step[0], flat.dtype))


@pytest.mark.parametrize("kind", list(NETWORKS))
@pytest.mark.parametrize("dim", [1, 2, 10])
@pytest.mark.parametrize(
    "objective", [DenoisingScoreMatching(1.0), ExplicitScoreMatching()], ids=["dsm", "esm"]
)
def test_gaussian_recovers_its_precision(objective, dim, kind):
    mean, covariance = truth(dim)
    row_key, loss_key = jax.random.split(jax.random.key(dim))
    z = jax.random.normal(row_key, (NUM_ROWS, dim))
    data = mean + z @ np.linalg.cholesky(covariance).T

    def loss(params):
        return jnp.mean(objective(NETWORKS[kind](params), data, loss_key))

    fitted = minimize(loss, {"A": jnp.eye(dim), "b": jnp.zeros(dim)})
    expected = np.linalg.inv(covariance + objective.noise_scale**2 * np.eye(dim))
    error = np.linalg.norm(fitted["A"] - expected) / np.linalg.norm(expected)
    assert error < TOLERANCE
    fitted_mean = np.linalg.solve(np.asarray(fitted["A"]), np.asarray(fitted["b"]))
    assert np.linalg.norm(fitted_mean - mean) < TOLERANCE * np.linalg.norm(mean)
