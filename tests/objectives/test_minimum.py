"""At the analytic score each loss is at its minimum; with a planted bug it is not."""

import jax
import jax.numpy as jnp
import pytest

from numpyro_score.networks import score_fn
from numpyro_score.objectives import (
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    SlicedScoreMatching,
)

from .gaussian import DIM, NETWORKS, NOISE_SCALE, NUM_DIRECTIONS, assert_is_minimum, rows

KINDS = pytest.mark.parametrize("kind", list(NETWORKS))


@KINDS
def test_denoising(kind):
    assert_is_minimum(DenoisingScoreMatching(NOISE_SCALE), kind, NOISE_SCALE)


@KINDS
@pytest.mark.parametrize("noise_scale", [NOISE_SCALE, 0.05])
def test_denoising_with_control_variate(kind, noise_scale):
    objective = DenoisingScoreMatching(noise_scale, control_variate=True)
    assert_is_minimum(objective, kind, noise_scale)


@KINDS
@pytest.mark.parametrize(
    "objective",
    [
        ExplicitScoreMatching(),
        ExplicitScoreMatching(1, "rademacher"),
        ExplicitScoreMatching(3, "normal"),
        ExplicitScoreMatching(2, "sphere"),
        SlicedScoreMatching(),
        SlicedScoreMatching(3, "rademacher"),
        SlicedScoreMatching(2, variance_reduced=False),
        SlicedScoreMatching(1, "sphere", variance_reduced=False),
    ],
    ids=repr,
)
def test_explicit_and_sliced(objective, kind):
    assert_is_minimum(objective, kind, 0.0)


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


def sliced(*, over_probes=jnp.mean, projected=lambda v, s: v @ s):
    """Sliced score matching with three directions, written a second time with room for bugs."""

    def objective(network, batch, key):
        score = score_fn(network, batch.shape[1:])
        directions = jax.random.normal(key, (len(batch), 3, DIM))

        def loss(x, directions):
            jacobian, value = jax.jacfwd(score)(x), score(x)
            curvature = over_probes(jnp.stack([v @ jacobian @ v for v in directions]))
            return (
                curvature + jnp.mean(jnp.stack([projected(v, value) ** 2 for v in directions])) / 2
            )

        return jax.vmap(loss)(batch, directions)

    return objective


SLICED_BUGS = {
    "never averaged": sliced(over_probes=jnp.sum),
    "divided by the dimension": sliced(over_probes=lambda c: jnp.mean(c) / DIM),
    "projected on a unit vector": sliced(projected=lambda v, s: v @ s / jnp.linalg.norm(v)),
}
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
    assert_is_minimum(sliced(), "energy", 0.0)


@pytest.mark.parametrize("bug", list(DENOISING_BUGS))
def test_denoising_with_a_bug_fails(bug):
    with pytest.raises(AssertionError):
        assert_is_minimum(DENOISING_BUGS[bug], "energy", NOISE_SCALE)


@pytest.mark.parametrize("bug", list(EXPLICIT_BUGS))
def test_explicit_with_a_bug_fails(bug):
    with pytest.raises(AssertionError):
        assert_is_minimum(EXPLICIT_BUGS[bug], "energy", 0.0)


@pytest.mark.parametrize("bug", list(SLICED_BUGS))
def test_sliced_with_a_bug_fails(bug):
    with pytest.raises(AssertionError):
        assert_is_minimum(SLICED_BUGS[bug], "energy", 0.0)


def test_the_control_variate_bounds_the_variance():
    make, x, key = NETWORKS["energy"], rows(jax.random.key(0)), jax.random.key(1)
    zero, theta = jnp.zeros(NUM_DIRECTIONS), 0.3 * jnp.ones(NUM_DIRECTIONS)
    variances = {}
    for noise_scale in (0.1, 0.01):
        for control_variate in (False, True):
            objective = DenoisingScoreMatching(noise_scale, control_variate)
            differ = objective(make(theta, 0.0), x, key) - objective(make(zero, 0.0), x, key)
            variances[noise_scale, control_variate] = float(differ.var())
    # 1 / noise_scale² without it.
    assert variances[0.01, False] > 30 * variances[0.1, False]
    assert variances[0.01, True] < 1.2 * variances[0.1, True]
