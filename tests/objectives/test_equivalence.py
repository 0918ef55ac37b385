"""Denoising and explicit score matching of the blurred density differ by a constant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.objectives import DenoisingScoreMatching, ExplicitScoreMatching

from .gaussian import (
    NETWORKS,
    NOISE_SCALE,
    NUM_DIRECTIONS,
    STANDARD_ERRORS,
    rows,
    standard_errors,
)
from .test_minimum import denoising

KINDS = pytest.mark.parametrize("kind", list(NETWORKS))


def differences(objective, kind, theta):
    """DSM minus ESM per row at ``theta``, less the same at the analytic score."""
    row_key, blur_key, loss_key = jax.random.split(jax.random.key(1), 3)
    x = rows(row_key)
    blurred = x + NOISE_SCALE * jax.random.normal(blur_key, x.shape)

    @jax.jit
    def difference(theta):
        network = NETWORKS[kind](theta, NOISE_SCALE)
        explicit = ExplicitScoreMatching()(network, blurred, loss_key)
        return objective(network, x, loss_key) - explicit

    return difference(theta) - difference(jnp.zeros(NUM_DIRECTIONS))


@KINDS
@pytest.mark.parametrize("seed", range(3))
def test_difference_is_constant_in_the_parameters(kind, seed):
    theta = 0.5 * jax.random.normal(jax.random.key(seed), (NUM_DIRECTIONS,))
    samples = differences(DenoisingScoreMatching(NOISE_SCALE), kind, theta)
    assert abs(standard_errors(samples)) < STANDARD_ERRORS


@pytest.mark.parametrize(
    "bug", [{"sign": -1.0}, {"blur": NOISE_SCALE**2}, {"target": NOISE_SCALE**2}]
)
def test_difference_sees_bugs(bug):
    theta = jnp.asarray(0.5 * np.ones(NUM_DIRECTIONS))
    assert abs(standard_errors(differences(denoising(**bug), "energy", theta))) > STANDARD_ERRORS
