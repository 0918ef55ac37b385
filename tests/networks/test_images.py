"""Networks for images, and energies made of networks that return one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import (
    ConvEnergy,
    DenoiserEnergy,
    InnerProductEnergy,
    ScoreMLP,
    UNet,
    score_fn,
)
from numpyro_score.objectives import DenoisingScoreMatching
from numpyro_score.training import fit

KEY = jax.random.key(0)
SHAPES = [(8, 8), (1, 8, 4), (3, 4, 8)]


def perturbed(network):
    """The network with weights in its head, which start at zero."""
    fresh = jax.random.normal(jax.random.key(1), (1000,))
    where = (lambda n: n.head) if isinstance(network, ConvEnergy) else (lambda n: n.head.weight)
    head = where(network)
    return eqx.tree_at(where, network, fresh[: head.size].reshape(head.shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cls", [ConvEnergy, UNet])
def test_shapes(cls, shape):
    network = perturbed(cls(shape, width=4, levels=3, key=KEY))
    x = jax.random.normal(KEY, (2, *shape))
    out = jax.vmap(network)(x)
    assert out.shape == ((2,) if cls is ConvEnergy else x.shape)
    assert jnp.isfinite(out).all()
    assert (out[0] != out[1]).any()
    assert jax.vmap(score_fn(network, shape))(x).shape == x.shape


@pytest.mark.parametrize("cls", [ConvEnergy, UNet])
def test_untrained_they_are_their_gaussian(cls):
    data = 3.0 + 2.0 * jax.random.normal(KEY, (2_000, 4, 4))
    network = cls((4, 4), width=4, key=KEY).fit_base(data, noise_scale=0.5)
    x = data[0]
    z = np.linalg.solve(
        np.cov(data.reshape(-1, 16).T, bias=True) + 0.25 * np.eye(16), (x - data.mean(0)).ravel()
    )
    np.testing.assert_allclose(score_fn(network, (4, 4))(x).ravel(), -z, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cls", [ConvEnergy, UNet])
def test_the_base_wins_far_away(cls):
    network = perturbed(cls((8, 8), width=4, key=KEY))
    direction = jax.random.normal(KEY, (8, 8))
    far = 1e4 * direction
    np.testing.assert_allclose(score_fn(network, (8, 8))(far) / 1e4, -direction, atol=1e-2)


def test_a_place_is_like_another():
    """A shift of the image shifts what a convolution sees, but for the border."""
    network = perturbed(ConvEnergy((16, 16), width=4, levels=1, key=KEY))
    spot = jnp.zeros((16, 16)).at[5, 5].set(2.0)
    np.testing.assert_allclose(network(spot), network(jnp.roll(spot, (3, 4), (0, 1))), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvEnergy((8,), key=KEY), r"image_shape must be \(rows, columns\) or"),
        (lambda: UNet((8, 6), levels=3, key=KEY), "must be divisible by 4, to be halved 2 times"),
        (lambda: UNet((8, 8), width=0, key=KEY), "width must be an integer of at least 1"),
        (lambda: ConvEnergy((8, 8), width=4, key=KEY)(jnp.ones(64)), "takes one image of shape"),
        (lambda: UNet((8, 8), width=4, key=KEY).fit_base(jnp.ones((5, 64))), "data must have the"),
        (
            lambda: UNet((8, 8), width=4, key=KEY).fit_base(jnp.ones((5, 8, 8)), 0.1, jnp.ones(5)),
            "takes no condition",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_energy_of_a_denoiser():
    energy = DenoiserEnergy(lambda x: 0.5 * x, noise_scale=2.0)
    x = jnp.array([2.0, 4.0])
    assert energy(x) == 0.5 * (1.0 + 4.0) / 4.0
    with pytest.raises(ValueError, match="must return an array of the shape of an event"):
        DenoiserEnergy(jnp.sum, 1.0)(x)
    with pytest.raises(ValueError, match="noise_scale must be a finite number above 0"):
        DenoiserEnergy(lambda x: x, 0.0)


def test_the_inner_product_of_a_gaussian_score_is_its_energy():
    precision, mean = jnp.array([[2.0, 0.6], [0.6, 1.0]]), jnp.array([1.0, -2.0])
    energy = InnerProductEnergy(lambda x: -precision @ (x - mean), mean)
    x = jnp.array([0.3, 0.4])
    np.testing.assert_allclose(energy(x), 0.5 * (x - mean) @ precision @ (x - mean), rtol=1e-6)
    np.testing.assert_allclose(-jax.grad(energy)(x), -precision @ (x - mean), rtol=1e-6)
    with pytest.raises(ValueError, match="must return an array of the shape of an event"):
        InnerProductEnergy(jnp.sum)(x)


def test_fit_finds_the_base_inside():
    data = jnp.array([5.0, -3.0]) + jax.random.normal(KEY, (500, 2))
    energy = InnerProductEnergy(ScoreMLP(2, width=4, key=KEY))
    result = fit(
        KEY,
        energy,
        data,
        DenoisingScoreMatching(0.2),
        num_steps=5,
        batch_size=32,
        validation_fraction=0.0,
        progress_bar=False,
    )
    learned = result.network
    np.testing.assert_allclose(learned.centre.tree, data.mean(0), rtol=1e-5)
    np.testing.assert_allclose(learned.network.base.mean, data.mean(0), rtol=1e-5)
    assert InnerProductEnergy(lambda x: -x).fit_base(data).centre.tree == 0.0
