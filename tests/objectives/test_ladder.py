"""A loss over many noise levels is the mean of the weighted losses of each."""

import jax
import jax.numpy as jnp
import pytest

from numpyro_score.objectives import DenoisingScoreMatching, LadderScoreMatching

from .gaussian import NETWORKS, NUM_DIRECTIONS, STANDARD_ERRORS, rows, standard_errors

SCALES = (0.2, 0.5, 2.0)
THETA = 0.3 * jnp.ones(NUM_DIRECTIONS)


def network(x, noise_scale):
    """A score that is wrong by an amount that depends on the level."""
    return NETWORKS["score"](noise_scale * THETA, 0.5)(x)


def assert_is_mean_of(weight):
    x = rows(jax.random.key(0))
    losses = LadderScoreMatching(SCALES)(network, x, jax.random.key(1))
    expected = sum(
        weight(scale) * DenoisingScoreMatching(scale)(lambda x, s=scale: network(x, s), x, key)
        for scale, key in zip(SCALES, jax.random.split(jax.random.key(2), 3), strict=True)
    ) / len(SCALES)
    assert abs(standard_errors(losses - expected)) < STANDARD_ERRORS


def test_levels_are_weighted_by_their_variance():
    assert_is_mean_of(lambda scale: scale**2)


@pytest.mark.parametrize("power", [0, 1])
def test_another_weight_is_seen(power):
    with pytest.raises(AssertionError):
        assert_is_mean_of(lambda scale: scale**power)


def test_the_smallest_level_is_what_is_learned():
    assert LadderScoreMatching([1, 0.1, 3]).noise_scale == 0.1
    assert LadderScoreMatching([1, 0.1, 3]).noise_scales == (1.0, 0.1, 3.0)
