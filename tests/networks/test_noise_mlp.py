"""Networks of all noise levels: exact on a Gaussian, bounded elsewhere, and able to learn modes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import (
    AtNoise,
    GaussianBase,
    NoisedGaussian,
    NoiseEnergyMLP,
    NoiseScoreMLP,
    as_score,
    score_fn,
)
from numpyro_score.networks._frozen import trainable
from numpyro_score.objectives import LadderScoreMatching
from numpyro_score.training import fit

from .test_mlp import with_random_weights

BOTH = pytest.mark.parametrize("cls", [NoiseEnergyMLP, NoiseScoreMLP])
LEVELS = (1e-2, 0.7, 30.0)
X = jnp.array([1.0, -2.0, 3.0])


def data(n=200):
    """Three columns, the last of which is the sum of the others."""
    rows = np.random.default_rng(1).normal(size=(n, 2)) * [1.0, 3.0] + 4.0
    return np.column_stack([rows, rows.sum(1)])


def score_of(network):
    return score_fn(network, (3,))


# -- the Gaussian ------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("noise_scale", LEVELS)
def test_an_untrained_network_is_the_gaussian_of_the_noised_data(cls, noise_scale):
    network = cls(3, width=8, key=jax.random.key(0)).fit_base(data())
    covariance = np.cov(data(), rowvar=False, bias=True) + noise_scale**2 * np.eye(3)
    expected = -np.linalg.solve(covariance, X - data().mean(0))
    found = score_of(network)(X, noise_scale)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-6)


def test_the_gaussian_of_one_level():
    base = NoisedGaussian.fit(data()).at(0.5)
    expected = GaussianBase.fit(data(), noise_scale=0.5)
    for found, exact in zip(jax.tree.leaves(base), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(base.log_normalizer, expected.log_normalizer, rtol=1e-4)
    traced = jax.jit(lambda base: base.at(0.5))(NoisedGaussian.fit(data()))
    np.testing.assert_allclose(traced.whitening, base.whitening, rtol=1e-5)


def test_constant_columns_are_blurred_and_constant_data_refused():
    rows = np.column_stack([data(), np.full(200, 7.0)])
    assert NoisedGaussian.fit(rows).at(0.1).energy(jnp.asarray(rows[0])) < 50
    with pytest.raises(ValueError, match="every column is constant"):
        NoisedGaussian.fit(np.ones((5, 2)))


# -- what a network adds -----------------------------------------------------------------------


@BOTH
def test_a_change_of_units_changes_nothing_else(cls):
    network = with_random_weights(cls(3, width=8, key=jax.random.key(0)))
    here, there = network.fit_base(data()), network.fit_base(1000 * data())
    # The axes of both are the same up to their signs, which the layers see.
    there = eqx.tree_at(lambda n: n.base.axes, there, here.base.axes)
    found = 1000 * score_of(there)(1000 * X, 700.0)
    np.testing.assert_allclose(found, score_of(here)(X, 0.7), rtol=2e-3)


@pytest.mark.parametrize("noise_scale", LEVELS)
def test_the_correction_is_as_large_as_scores_of_data_may_be(noise_scale):
    # Data of variance λ at a known place: the score is that of N(x₀, σ²), the base N(0, λ + σ²).
    base = NoisedGaussian(jnp.zeros(1), jnp.full(1, 4.0), jnp.eye(1))
    x0, noise = np.random.default_rng(0).normal(size=(2, 20_000)) * [[2.0], [noise_scale]]
    residual = -noise / noise_scale**2 + (x0 + noise) / (4.0 + noise_scale**2)
    size = base.correct(jnp.ones(1), noise_scale)[0]
    np.testing.assert_allclose(np.std(residual) / size, 1.0, atol=0.02)


@BOTH
def test_tails_point_home_at_every_level_whatever_the_weights(cls):
    network = with_random_weights(cls(3, width=16, key=jax.random.key(0)), scale=3.0)
    directions = jax.random.normal(jax.random.key(1), (50, 3))
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    for noise_scale in (0.05, 0.7, 30.0):
        score = jax.vmap(lambda x, s=noise_scale: score_of(network)(x, s))
        assert jnp.all(jnp.sum(score(1e8 * directions) * directions, axis=1) < 0)


@BOTH
def test_a_condition_enters_and_a_wrong_one_is_refused(cls):
    network = cls(3, width=8, condition_size=2, key=jax.random.key(0))
    network = with_random_weights(network, scale=0.3)  # tanh would be flat at large ones
    network = network.fit_base(data(), condition=np.random.default_rng(0).normal(size=(200, 2)))
    here, there = network(X, 0.7, jnp.zeros(2)), network(X, 0.7, jnp.ones(2))
    assert not np.allclose(here, there, rtol=1e-3)
    with pytest.raises(ValueError, match=r"condition of shape \(2,\)"):
        network(X, 0.7)
    with pytest.raises(ValueError, match="takes no condition"):
        cls(3, width=8, key=jax.random.key(0))(X, 0.7, jnp.zeros(2))


@BOTH
@pytest.mark.parametrize("noise_scale", LEVELS)
def test_of_data_normal_with_their_condition_it_is_the_conditional_score(cls, noise_scale):
    condition = np.random.default_rng(2).normal(size=(200, 2)) * [5.0, 0.1] - 3.0
    rows = data() + condition @ np.array([[1.0, 0.0, 2.0], [0.0, -20.0, 5.0]])
    network = cls(3, width=8, condition_size=2, key=jax.random.key(0))
    network = network.fit_base(rows, condition=condition)
    joint = np.cov(np.column_stack([rows, condition]), rowvar=False, bias=True)
    gain = np.linalg.solve(joint[3:, 3:], joint[3:, :3]).T
    covariance = joint[:3, :3] - gain @ joint[3:, :3] + noise_scale**2 * np.eye(3)
    c = condition[0] + 0.1
    mean = rows.mean(0) + gain @ (c - condition.mean(0))
    found = score_fn(network, (3,))(X, noise_scale, jnp.asarray(c, jnp.float32))
    expected = np.linalg.solve(covariance, mean - X)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


@BOTH
def test_a_condition_that_tells_all_or_of_too_few_rows_leaves_the_gaussian_of_the_data(cls):
    network = cls(3, width=8, condition_size=3, key=jax.random.key(0))
    for rows in (data(), data(20)):
        fitted = network.fit_base(rows, condition=rows)
        np.testing.assert_allclose(fitted.regression.slope, 0.0)
        np.testing.assert_allclose(fitted.base.mean, rows.mean(0), rtol=1e-5)
        assert fitted.base.data_scale > 1


@BOTH
def test_wrong_shapes_and_levels_are_refused(cls):
    network = cls(3, width=8, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"one event of shape \(3,\)"):
        network(jnp.ones(2), 0.7)
    with pytest.raises(ValueError, match=r"noise_scale of shape \(\)"):
        network(X, jnp.ones(3))
    for noise_scale in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="noise_scale must be a finite number above 0"):
            network(X, noise_scale)


def test_base_is_not_trained():
    marks = trainable(NoiseScoreMLP(3, width=8, key=jax.random.key(0)))
    assert marks.base is False
    assert marks.head is True


# -- learning ----------------------------------------------------------------------------------

MODES, WIDTH = np.array([[-4.0, 0.0], [4.0, 0.0]]), 0.5


def exact_log_density(x, noise_scale):
    """Of two modes that lie sixteen of their widths apart, blurred."""
    distances = jnp.sum((x - MODES) ** 2, 1) / (WIDTH**2 + noise_scale**2)
    return jax.nn.logsumexp(jnp.log(jnp.array([0.25, 0.75])) - 0.5 * distances)


def error_at(network, noise_scale, clean):
    """Mean squared error of the score over that of the Gaussian of the data."""
    noise = jax.random.normal(jax.random.key(5), clean.shape)
    blurred = clean + noise_scale * noise
    exact = jax.vmap(jax.grad(lambda x: exact_log_density(x, noise_scale)))(blurred)
    found = jax.vmap(lambda x: score_fn(network, (2,))(x, noise_scale))(blurred)
    gaussian = jax.vmap(lambda x: network.base.score(x, noise_scale))(blurred)
    return jnp.sum((found - exact) ** 2) / jnp.sum((gaussian - exact) ** 2)


@BOTH
def test_a_ladder_teaches_modes_at_every_level(cls):
    rng = np.random.default_rng(0)
    modes = MODES[rng.choice(2, size=4000, p=[0.25, 0.75])]
    clean = jnp.asarray(modes + WIDTH * rng.normal(size=(4000, 2)), jnp.float32)
    ladder = LadderScoreMatching(tuple(np.geomspace(0.3, 10.0, 8)))
    network = cls(2, width=32, depth=2, key=jax.random.key(0))
    result = fit(
        jax.random.key(1), network, clean, ladder, num_steps=1500, batch_size=256,
        learning_rate=3e-3, ema_decay=0.99, progress_bar=False,
    )  # fmt: skip
    for noise_scale in (0.3, 1.0, 3.0):
        assert error_at(result.network, noise_scale, clean) < 0.1
    # One level of it is a density: the two modes have their weights.
    level = AtNoise(result.network, 1.0)
    if cls is NoiseEnergyMLP:
        grid = np.linspace(-12, 12, 241)
        points = jnp.stack(jnp.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
        mass = jax.nn.softmax(-jax.vmap(level)(points)).reshape(241, 241).sum(1)
        assert abs(mass[grid < 0].sum() - 0.25) < 0.05
    else:
        np.testing.assert_allclose(level(X[:2]), result.network(X[:2], 1.0))
    assert isinstance(level.base, GaussianBase)


def test_one_level_of_a_network_without_a_base():
    assert AtNoise(lambda x, s: x / s, 2.0).base is None
    pair = (lambda p, x, s: -p * x / s, jnp.ones(3))
    assert AtNoise(pair, 2.0)(X).tolist() == (-X / 2).tolist()
    with pytest.raises(ValueError, match="noise_scale"):
        AtNoise(lambda x, s: x, -1.0)
    assert as_score(AtNoise(lambda x, s: jnp.sum(x**2) / s, 2.0))(X).tolist() == (-X).tolist()
