"""The autoregressive density of images: who sees whom, and that draws are those of the density."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.special import ndtr

from numpyro_score.networks import CausalConvDensity, causal
from numpyro_score.networks._frozen import trainable
from numpyro_score.objectives import MaximumLikelihood
from tests.objectives.gaussian import standard_errors

from .densities import KEY, STANDARD_ERRORS, integral, shaken


def small(shape, scale=0.3, **options):
    settings = {"width": 4, "depth": 2, "num_components": 2} | options
    return shaken(CausalConvDensity(shape, **settings, key=KEY), scale)


@eqx.filter_jit
def mixture_jacobian(network, z):
    return jax.jacrev(network._mixture)(z)


def sees(network, shape):
    """Whether the mixture of pixel i depends on pixel j, shape (pixels, pixels)."""
    num = shape[-2] * shape[-1]
    z = jax.random.normal(KEY, (shape[0] if len(shape) == 3 else 1, *shape[-2:]))
    jacobian = mixture_jacobian(network, z)
    return sum(
        (leaf != 0).reshape(-1, num, len(z), num).any((0, 2)) for leaf in jax.tree.leaves(jacobian)
    ).astype(bool)


BEFORE = np.tri(12, k=-1, dtype=bool)


SHAPE = (2, 3, 4)


def test_a_pixel_sees_all_that_are_before_it_and_none_else():
    np.testing.assert_array_equal(sees(small(SHAPE), SHAPE), BEFORE)


def see_themselves(monkeypatch):
    """What is planted: the mask of later layers in the first (B in place of A)."""
    monkeypatch.setattr(causal, "_shift_right", lambda x: x)


def test_a_pixel_that_sees_itself_is_found(monkeypatch):
    see_themselves(monkeypatch)
    # Of a shape that no other test has compiled.
    assert sees(small((2, 2)), (2, 2)).diagonal().any()


def test_a_blind_spot_is_found():
    network = small(SHAPE)
    asides = tuple(block.aside for block in network.left)
    nothing = jax.tree.map(jnp.zeros_like, asides)
    cut = eqx.tree_at(lambda n: tuple(block.aside for block in n.left), network, nothing)
    blind = sees(cut, SHAPE)
    assert (blind <= BEFORE).all()
    assert (blind != BEFORE).any()


def test_two_pixels_above_each_other_integrate_to_one():
    shape = (2, 1)
    data = 3.0 + 2.0 * jax.random.normal(KEY, (200, *shape))
    total = integral(small(shape).fit_base(data), shape, 3.0, 2.0)
    assert abs(total - 1) < 0.003


def test_pixels_that_see_themselves_do_not(monkeypatch):
    see_themselves(monkeypatch)
    assert abs(integral(small((1, 2)), (1, 2), 0.0, 1.0) - 1) > 0.03


def pit_errors(shape=(2, 2), num_draws=1_500):
    """Errors of the moments of what must be uniform and independent: each pixel's own cdf."""
    # Weights so large that the pixels say much about each other.
    network = small(shape, 0.7, depth=1, num_components=3)
    data = 3.0 + 2.0 * jax.random.normal(KEY, (200, *shape))
    network = network.fit_base(data)
    x = jax.jit(lambda key: network.sample(key, (num_draws,)))(KEY)

    def cdf(x):
        z = network.base.standardization(x.ravel()).reshape(1, *shape)
        mixture = network._mixture(z)
        below = ndtr((z - mixture.mean) * jnp.exp(-mixture.log_scale))[:, 0]
        return jnp.sum(jax.nn.softmax(mixture.logits, 0) * below, 0)

    u = np.asarray(jax.jit(jax.vmap(cdf))(x), float).reshape(len(x), -1) - 0.5
    pairs = u[:, :, None] * u[:, None] - np.eye(u.shape[1]) / 12
    columns = np.concatenate([u, pairs.reshape(len(u), -1)], 1)
    return np.abs(standard_errors(columns)).max()


def test_each_pixel_is_drawn_from_its_mixture():
    assert pit_errors() < STANDARD_ERRORS


def test_draws_of_pixels_that_see_themselves_are_not(monkeypatch):
    see_themselves(monkeypatch)
    assert pit_errors() > STANDARD_ERRORS


def test_untrained_pixels_are_independent_with_the_moments_of_the_data():
    data = 3.0 + 2.0 * jax.random.normal(KEY, (500, 2, 2))
    network = CausalConvDensity((2, 2), width=4, depth=1, key=KEY).fit_base(data)
    np.testing.assert_allclose(network.base.mean, data.mean(0).ravel(), rtol=1e-5)
    np.testing.assert_allclose(network.base.scale, data.std(0).ravel(), rtol=1e-5)
    for z in (jnp.zeros((1, 2, 2)), jnp.full((1, 2, 2), 5.0)):
        mixture = eqx.filter_jit(network._mixture)(z)
        weight = jax.nn.softmax(mixture.logits, 0)[:, None]
        first = (weight * mixture.mean).sum(0)
        second = (weight * (mixture.mean**2 + jnp.exp(2 * mixture.log_scale))).sum(0)
        np.testing.assert_allclose(first, 0.0, atol=1e-6)
        np.testing.assert_allclose(second, 1.0, rtol=1e-5)


def learn(network, x, num_steps):
    """Not ``fit``: with the flags of these tests convolutions in its loop take 20 times longer."""
    params, rest = eqx.partition(network, trainable(network))
    optimizer = optax.adam(1e-2)

    def loss(params, batch):
        return MaximumLikelihood()(eqx.combine(params, rest), batch, KEY).mean()

    @jax.jit
    def step(params, state, batch):
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for rows in np.random.default_rng(0).integers(0, len(x), (num_steps, 64)):
        params, state = step(params, state, x[rows])
    return eqx.combine(params, rest)


def test_it_learns_what_pixels_say_about_each_other():
    """A Gaussian field with correlations in both directions: its entropy is known."""
    distance = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    covariance = np.kron(0.8**distance, 0.6**distance)
    noise = np.random.default_rng(0).normal(size=(5_000, 9))
    x = jnp.asarray(noise @ np.linalg.cholesky(covariance).T, float).reshape(-1, 3, 3)
    network = CausalConvDensity((3, 3), width=8, depth=1, num_components=1, key=KEY)
    network = learn(network.fit_base(x[:4_000]), x[:4_000], num_steps=150)
    log_det = np.linalg.slogdet(covariance)[1]
    log_p = -0.5 * (noise[4_000:] ** 2).sum(1) - 4.5 * np.log(2 * np.pi) - 0.5 * log_det
    excess = log_p + np.asarray(jax.vmap(network)(x[4_000:]))
    assert -0.5 * log_det > 2.5  # what independent pixels miss
    assert -5 * excess.std() / np.sqrt(1_000) < excess.mean() < 0.25


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CausalConvDensity((8,), key=KEY), r"image_shape must be \(rows, columns\) or"),
        (lambda: CausalConvDensity((2, 2), depth=0, key=KEY), "depth must be an integer of at"),
        (lambda: small((2, 2))(jnp.zeros(4)), "takes one image of shape"),
        (lambda: small((2, 2))(jnp.zeros((2, 2)), jnp.zeros(1)), "takes no condition"),
        (lambda: small((2, 2)).sample(KEY, (), jnp.zeros(1)), "takes no condition"),
        (lambda: small((2, 2)).fit_base(jnp.zeros((5, 4))), "data must have the shape"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
