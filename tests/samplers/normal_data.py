"""Normal data under a diffusion, and their posteriors given linear measurements."""

import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.samplers.guidance import Measurement
from numpyro_score.sde import VE, VP

MEAN = np.array([0.5, -1.0, 2.0])
FACTOR = np.array([[1.0, 0.0, 0.0], [0.7, 0.6, 0.0], [-0.4, 0.3, 0.5]])
COVARIANCE = FACTOR @ FACTOR.T
MATRIX = np.array([[1.0, 0.5, -0.3], [0.2, -1.0, 0.8]])
Y, NOISE = np.array([1.0, 0.7]), 0.4
SDES = {"ve": VE(0.02, 30.0), "vp": VP()}
EVERY = pytest.mark.parametrize("name", SDES)
MEASUREMENT = Measurement(lambda x: jnp.asarray(MATRIX, x.dtype) @ x, jnp.asarray(Y, float), NOISE)


def normal_score(sde, mean, covariance):
    """Of normal data."""
    values, vectors = np.linalg.eigh(covariance)

    def score(x, t):
        scale, std = sde.mean_scale(t), sde.marginal_std(t)
        turned = (x - scale * mean.astype(np.float32)) @ vectors.astype(np.float32)
        return -(turned / (scale**2 * values.astype(np.float32) + std**2)) @ vectors.T.astype(
            np.float32
        )

    return score


def condition(mean, covariance, matrix, y, noise):
    """Mean and covariance of the posterior, and the log density of y; noise may be a covariance."""
    noise = noise**2 * np.eye(len(y)) if np.ndim(noise) == 0 else noise
    spread = matrix @ covariance @ matrix.T + noise
    gain = np.linalg.solve(spread, matrix @ covariance).T
    residual = y - matrix @ mean
    log_prob = -0.5 * residual @ np.linalg.solve(spread, residual)
    log_prob -= 0.5 * np.linalg.slogdet(2 * np.pi * spread)[1]
    return mean + gain @ residual, covariance - gain @ matrix @ covariance, log_prob


def at_time(sde, t, mean, covariance):
    """The law of normal data with the noise of a time."""
    scale, std = float(sde.mean_scale(t)), float(sde.marginal_std(t))
    return scale * mean, scale**2 * covariance + std**2 * np.eye(len(mean))
