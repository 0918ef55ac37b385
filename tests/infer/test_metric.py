"""The adapted metric itself. A collapsed metric shows an acceptance as good as that of a right one.

The measure throughout is the condition number of L⁻¹ Σ L⁻ᵀ, for the metric L Lᵀ and the covariance
Σ of the target: how far from round the target is in the coordinates that the kernel steps in.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from numpyro.infer import MCMC

from numpyro_score.infer import MALA, _warmup
from numpyro_score.infer._metric import finish_metric, init_metric, update_metric
from numpyro_score.infer._whitening import DenseWhitening, DiagonalWhitening

SIZE = 20


def gaussian(condition_number, size=SIZE, seed=0):
    """Return W of a randomly turned Gaussian with energy ½ ‖W z‖², and its covariance."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(size, size)))
    sd = np.geomspace(1, np.sqrt(condition_number), size)
    root = np.asarray(jnp.asarray(rotation / sd[:, None], float), np.float64)
    return root, np.linalg.inv(root.T @ root)


def roundness(factor, covariance):
    """Eigenvalues of L⁻¹ Σ L⁻ᵀ, all 1 for a perfect metric."""
    inverse = np.linalg.inv(np.asarray(factor, np.float64))
    return np.linalg.eigvalsh(inverse @ covariance @ inverse.T)


def window(rng_key, factor, z, root, num_moves, step_scale=0.1, dense=True):
    """Random walk from ``z`` in the coordinates of ``factor``; its window, and where it ends."""
    size = len(z)
    steps = step_scale * random.normal(rng_key, (num_moves, size))

    def move(carry, step):
        z, state = carry
        z = z + (factor @ step if dense else factor * step)
        gradient = -root.T @ (root @ z)
        score = gradient @ factor if dense else gradient * factor
        return (z, update_metric(state, step[None], score[None], jnp.array([True]))), step

    start = (z, init_metric(z[None], dense))
    (z, state), _ = jax.jit(lambda start: jax.lax.scan(move, start, steps))(start)
    return z, state, np.cumsum(np.asarray(steps, np.float64), axis=0)


def filled(draws, scores, dense):
    """Window that has seen these draws and scores."""
    last = jnp.zeros((1, draws.shape[1]))
    state = init_metric(last, dense)
    rows = jnp.asarray(draws[:, None], float), jnp.asarray(scores[:, None], float)
    for draw, score in zip(*rows, strict=True):
        state = update_metric(state, draw - last, score, jnp.array([True]))
        last = draw
    return state


# -- one window after another ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("condition_number", "size"), [(1e3, 20), (1e5, 20), (1e5, 5), (1e5, 60)])
def test_few_correlated_draws_give_the_exact_covariance_of_a_gaussian(condition_number, size, seed):
    """3 d steps of a random walk: far from independent, yet enough where scores are used.

    In float32 this takes the solution by singular values: one by matrix square roots ends at a
    condition number of a million for some of these cases, worse than where it started.
    """
    root, covariance = gaussian(condition_number, size, seed)
    whitening, z = DenseWhitening(jnp.eye(size)), jnp.ones(size)
    for key in random.split(random.key(seed), 5):  # each gains an order of magnitude or two
        z, state, walk = window(key, whitening.scale_tril, z, jnp.asarray(root, float), 3 * size)
        before, whitening = whitening, whitening.compose(finish_metric(state, dense=True))
    eigenvalues = roundness(whitening.scale_tril, covariance)
    np.testing.assert_allclose(eigenvalues, 1.0, atol=0.05)
    assert whitening.scale_tril.dtype == jnp.result_type(float)
    assert not np.triu(whitening.scale_tril, 1).any(), "L stays a lower triangle"

    # The same draws alone are far off: the covariance of a walk is spread over size² itself.
    sampled = np.asarray(before.scale_tril, np.float64) @ np.linalg.cholesky(np.cov(walk.T))
    eigenvalues = roundness(sampled, covariance)
    assert eigenvalues[-1] / eigenvalues[0] > size


@pytest.mark.parametrize(("num_moves", "dense"), [(2 * SIZE - 1, False), (2 * SIZE, True)])
def test_with_fewer_than_two_moves_a_dimension_only_the_diagonal_is_learned(num_moves, dense):
    root, _ = gaussian(100.0)
    _, state, _ = window(
        random.key(0), jnp.eye(SIZE), jnp.ones(SIZE), jnp.asarray(root, float), num_moves
    )
    factor = np.asarray(finish_metric(state, dense=True))
    assert (np.diagonal(factor) > 0).all()
    assert np.tril(factor, -1).any() == dense
    assert not np.allclose(np.diagonal(factor), 1.0, rtol=0.1)


@pytest.mark.parametrize("dense", [False, True])
def test_a_chain_that_never_moved_keeps_its_metric(dense):
    state = init_metric(jnp.zeros((1, 3)), dense)
    for _ in range(10):
        state = update_metric(state, jnp.zeros((1, 3)), jnp.ones((1, 3)), jnp.array([False]))
    identity = np.eye(3) if dense else np.ones(3)
    np.testing.assert_allclose(finish_metric(state, dense), identity, rtol=1e-5)
    np.testing.assert_allclose(
        finish_metric(init_metric(jnp.zeros((1, 3)), dense), dense), identity, rtol=1e-5
    )


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_window_that_is_not_finite_keeps_the_metric(dense, bad):
    rng = np.random.default_rng(0)
    draws, scores = rng.normal(size=(2, 20, 3))
    scores[7, 1] = bad
    factor = finish_metric(filled(draws, scores, dense), dense)
    np.testing.assert_array_equal(factor, np.eye(3) if dense else np.ones(3))


def test_a_diagonal_metric_spans_six_orders_of_magnitude_in_float32():
    sd = np.geomspace(1e-3, 1e3, 7)
    whitening, rng = DiagonalWhitening(jnp.ones(7)), np.random.default_rng(0)
    for _ in range(3):
        draws = sd * rng.normal(size=(50, 7))
        inverse_scale = np.asarray(whitening.inverse_scale, np.float64)
        state = filled(draws * inverse_scale, -draws / sd**2 / inverse_scale, dense=False)
        whitening = whitening.compose(finish_metric(state, dense=False))
    np.testing.assert_allclose(whitening.covariance(), sd**2, rtol=0.02)
    assert whitening.inverse_scale.dtype == jnp.result_type(float)
    # 50 draws alone know a variance to 20 %: the worst of seven is further off.
    assert np.abs(draws.var(0) / sd**2 - 1).max() > 0.1


# -- in the kernel -----------------------------------------------------------------------------


def adapted(condition_number=1e6, num_samples=1000, **options):
    """Run four chains; return the metric's factor of each, and its acceptance after warm-up."""
    root, covariance = gaussian(condition_number)
    root = jnp.asarray(root, float)
    mcmc = MCMC(
        MALA(potential_fn=lambda z: 0.5 * jnp.sum((root @ z) ** 2), **options),
        num_warmup=1000,
        num_samples=num_samples,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = random.uniform(random.key(1), (4, SIZE), minval=-2.0, maxval=2.0)
    mcmc.run(random.key(0), init_params=start, extra_fields=("accept_prob",))
    acceptance = mcmc.get_extra_fields(group_by_chain=True)["accept_prob"].mean(1)
    whitening = mcmc.last_state.adapt_state.whitening
    dense = isinstance(whitening, DenseWhitening)
    factors = whitening.scale_tril if dense else jax.vmap(jnp.diag)(1 / whitening.inverse_scale)
    eigenvalues = np.stack([roundness(factor, covariance) for factor in factors])
    return eigenvalues[:, -1] / eigenvalues[:, 0], np.asarray(acceptance)


def test_dense_metric_rounds_a_target_of_condition_number_a_million_in_every_chain():
    condition_numbers, acceptance = adapted(dense_mass=True)
    assert condition_numbers.max() <= 2, condition_numbers
    assert abs(acceptance.mean() - 0.574) <= 0.08, acceptance


def test_a_diagonal_metric_leaves_the_same_target_far_from_round():
    condition_numbers, _ = adapted(num_samples=1)
    assert condition_numbers.min() > 100


def test_a_metric_from_draws_alone_would_be_noticed(monkeypatch):
    """A planted bug: the sample covariance of the window, as in NumPyro's own adaptation."""

    def from_draws_alone(state, dense):
        covariance = state.draws.covariance
        return jnp.linalg.cholesky(covariance + 1e-3 * jnp.eye(len(covariance)))

    monkeypatch.setattr(_warmup, "finish_metric", from_draws_alone)
    condition_numbers, acceptance = adapted(dense_mass=True)
    assert condition_numbers.max() > 2
    assert abs(acceptance.mean() - 0.574) <= 0.15, "while the acceptance says little"
