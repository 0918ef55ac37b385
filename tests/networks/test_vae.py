"""A linear VAE is factor analysis, whose density is known: the bound against it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from numpyro_score.networks import VAE, vae
from numpyro_score.objectives import MaximumLikelihood
from numpyro_score.training import fit
from tests.objectives.gaussian import standard_errors

from .densities import KEY, STANDARD_ERRORS, shaken

DATA = jnp.array([3.0, -1.0, 0.5]) + 2.0 * jax.random.normal(KEY, (200, 3))


def linear(latent_size=2, **options):
    settings = {"depth": 0, "num_draws": 8} | options
    network = shaken(VAE((3,), latent_size, **settings, key=KEY).fit_base(DATA), 0.5)
    # An encoder narrower than the posterior would give weights without a variance.
    layer = network.encoder.layers[0]
    return eqx.tree_at(
        lambda n: (n.encoder.layers[0].weight, n.encoder.layers[0].bias),
        network,
        (layer.weight.at[latent_size:].set(0.0), layer.bias.at[latent_size:].set(0.2)),
    )


def exact(network):
    """The density of a linear VAE: a normal."""
    loading, offset = network.decoder.layers[0].weight, network.decoder.layers[0].bias
    covariance = loading @ loading.T + jnp.diag(jnp.exp(2 * network.log_noise_scale))
    mean, scale = network.base.mean, network.base.scale
    return dist.MultivariateNormal(
        mean + scale * offset, covariance_matrix=jnp.outer(scale, scale) * covariance
    )


def ratios(network, num_noises=3_000):
    """exp(bound) over the density, at a few events, for each of many noises."""
    x = exact(network).sample(jax.random.key(3), (4,))
    keys = jax.random.split(jax.random.key(4), num_noises)
    losses = jax.jit(jax.vmap(jax.vmap(network.loss, (0, None)), (None, 0)))(x, keys)
    return np.asarray(-losses - exact(network).log_prob(x), float)


def test_the_exponential_of_the_bound_is_an_unbiased_estimate():
    errors = standard_errors(np.exp(ratios(linear(num_training_draws=8))) - 1)
    assert np.abs(errors).max() < STANDARD_ERRORS


def test_a_bug_in_the_bound_is_seen(monkeypatch):
    """What is planted: a normal that is not divided by its scale."""
    monkeypatch.setattr(
        vae,
        "_log_normal",
        lambda x, mean, log_scale: jnp.sum(
            -0.5 * ((x - mean) * jnp.exp(-log_scale)) ** 2 - 0.5 * jnp.log(2 * jnp.pi), -1
        ),
    )
    errors = standard_errors(np.exp(ratios(linear(num_training_draws=8))) - 1)
    assert np.abs(errors).min() > STANDARD_ERRORS


def test_the_bound_comes_nearer_from_below():
    means = []
    for num_draws in (1, 8, 64):
        found = ratios(linear(num_training_draws=num_draws), 2_000)
        assert (found.mean(0) < 0).all()
        means.append(found.mean())
    assert means[0] < 2 * means[1] < 8 * means[2]


def test_with_the_exact_encoder_the_bound_is_the_density():
    network = linear(latent_size=1, num_draws=3)
    loading, noise = network.decoder.layers[0].weight[:, 0], jnp.exp(network.log_noise_scale)
    precision = 1 + jnp.sum((loading / noise) ** 2)
    towards = loading / noise**2 / precision
    layer = network.encoder.layers[0]
    raw = vae._LARGEST_LOG_SCALE * jnp.arctanh(-0.5 * jnp.log(precision) / vae._LARGEST_LOG_SCALE)
    network = eqx.tree_at(
        lambda n: (n.encoder.layers[0].weight, n.encoder.layers[0].bias),
        network,
        (
            jnp.zeros_like(layer.weight).at[0].set(towards),
            jnp.stack([-towards @ network.decoder.layers[0].bias, raw]),
        ),
    )
    x = DATA[:20]
    bounds = -jax.jit(jax.vmap(network))(x)
    np.testing.assert_allclose(bounds, exact(network).log_prob(x), atol=1e-3)


def test_draws_are_those_of_the_density():
    network = linear()
    normal = exact(network)
    draws = jax.jit(lambda: network.sample(KEY, (4_000,)))()
    white = np.linalg.solve(np.linalg.cholesky(normal.covariance_matrix), (draws - normal.mean).T).T
    products = white[:, :, None] * white[:, None] - np.eye(3)
    columns = np.concatenate([white, products.reshape(-1, 9)], 1)
    assert np.abs(standard_errors(columns)).max() < STANDARD_ERRORS
    assert jax.eval_shape(lambda: network.sample(KEY, (2, 3))).shape == (2, 3, 3)
    image = VAE((2, 3), 1, width=4, key=KEY)
    assert jax.eval_shape(lambda: image.sample(KEY)).shape == (2, 3)


def test_training_recovers_the_covariance():
    loading, noise = np.array([1.5, -1.0, 0.5]), np.array([0.5, 0.8, 1.0])
    covariance = np.outer(loading, loading) + np.diag(noise**2)
    z = np.random.default_rng(0).normal(size=(20_000, 3))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T, bias=True))).T
    x = jnp.asarray(z @ np.linalg.cholesky(covariance).T + [3.0, -1.0, 0.5], float)
    result = fit(
        KEY,
        VAE((3,), 1, depth=0, key=KEY),
        x,
        MaximumLikelihood(),
        num_steps=500,
        learning_rate=2e-2,
        validation_fraction=0.0,
        progress_bar=False,
    )
    normal = exact(result.network)
    error = np.linalg.norm(normal.covariance_matrix - covariance) / np.linalg.norm(covariance)
    assert error < 0.05
    np.testing.assert_allclose(normal.mean, [3.0, -1.0, 0.5], atol=0.05)
    gap = jax.vmap(result.network)(x[:500]) + normal.log_prob(x[:500])
    assert abs(gap.mean()) < 0.01  # its encoder is nearly exact


def test_the_energy_is_a_function_and_the_loss_is_not():
    network, x = linear(), DATA[0]
    energy, loss = eqx.filter_jit(network), eqx.filter_jit(network.loss)
    assert energy(x) == energy(x)
    assert loss(x, KEY) != loss(x, jax.random.key(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VAE((3,), 0, key=KEY), "latent_size must be an integer of at least 1"),
        (lambda: VAE((3,), 1, num_draws=0, key=KEY), "num_draws must be an integer of at least 1"),
        (lambda: linear()(jnp.zeros(4)), r"takes one event of shape \(3,\), got \(4,\)"),
        (lambda: linear()(jnp.zeros(3), jnp.zeros(1)), "takes no condition"),
        (lambda: linear().loss(jnp.zeros(3), KEY, jnp.zeros(1)), "takes no condition"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
