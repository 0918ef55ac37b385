"""At the analytic score each loss is at its minimum; with a planted bug it is not."""

import jax
import jax.numpy as jnp
import pytest

from numpyro_score.networks import score_fn
from numpyro_score.objectives import DenoisingScoreMatching, ExplicitScoreMatching

from .gaussian import DIM, NETWORKS, NOISE_SCALE, assert_is_minimum

KINDS = pytest.mark.parametrize("kind", list(NETWORKS))


@KINDS
def test_denoising(kind):
    assert_is_minimum(DenoisingScoreMatching(NOISE_SCALE), kind, NOISE_SCALE)


@KINDS
def test_explicit(kind):
    assert_is_minimum(ExplicitScoreMatching(), kind, 0.0)


def denoising(*, sign=1.0, blur=NOISE_SCALE, target=NOISE_SCALE, divide=lambda n: 1.0):
    """Denoising score matching, written a second time with room for bugs."""

    def objective(network, batch, key):
        noise = jax.random.normal(key, batch.shape)
        scores = jax.vmap(score_fn(network, batch.shape[1:]))(batch + blur * noise)
        return jnp.sum((scores + sign * noise / target) ** 2, 1) / 2 / divide(len(batch))

    return objective


def explicit(*, trace_factor=1.0, divide=lambda n: 1.0):
    """Explicit score matching, written a second time with room for bugs."""

    def objective(network, batch, key):
        score = score_fn(network, batch.shape[1:])
        trace = jax.vmap(lambda x: jnp.trace(jax.jacfwd(score)(x)))(batch)
        square = jnp.sum(jax.vmap(score)(batch) ** 2, 1)
        return (trace_factor * trace + square / 2) / divide(len(batch))

    return objective


DENOISING_BUGS = {
    "flipped sign": denoising(sign=-1.0),
    "noise scaled by the variance": denoising(blur=NOISE_SCALE**2),
    "target scaled by the variance": denoising(target=NOISE_SCALE**2),
    "averaged over the event": denoising(divide=lambda n: DIM),
    "divided by the batch size": denoising(divide=lambda n: n),
    "half forgotten": denoising(divide=lambda n: 0.5),
}
EXPLICIT_BUGS = {
    "flipped sign": explicit(trace_factor=-1.0),
    "trace divided by the dimension": explicit(trace_factor=1 / DIM),
    "averaged over the event": explicit(divide=lambda n: DIM),
    "divided by the batch size": explicit(divide=lambda n: n),
}


def test_the_second_writing_is_right_without_bugs():
    assert_is_minimum(denoising(), "energy", NOISE_SCALE)
    assert_is_minimum(explicit(), "energy", 0.0)


@pytest.mark.parametrize("bug", list(DENOISING_BUGS))
def test_denoising_with_a_bug_fails(bug):
    with pytest.raises(AssertionError):
        assert_is_minimum(DENOISING_BUGS[bug], "energy", NOISE_SCALE)


@pytest.mark.parametrize("bug", list(EXPLICIT_BUGS))
def test_explicit_with_a_bug_fails(bug):
    with pytest.raises(AssertionError):
        assert_is_minimum(EXPLICIT_BUGS[bug], "energy", 0.0)
