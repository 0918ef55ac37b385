"""An energy with a constant."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_score.distributions import EnergyDistribution
from numpyro_score.infer import check_model
from numpyro_score.networks import EnergyMLP, GaussianBase, LogNormalizerMLP, NormalizedEnergy
from numpyro_score.objectives import NoiseContrastiveEstimation
from numpyro_score.training import fit

KEY = jax.random.key(0)


def test_it_is_the_energy_and_a_number():
    network = NormalizedEnergy(lambda x, c: c * x[0], 2.0)
    assert network(jnp.array([3.0]), jnp.array(2.0)) == 8.0


def test_a_gaussian_base_is_where_the_constant_starts():
    data = 3.0 + 2.0 * jax.random.normal(KEY, (500, 2))
    network = NormalizedEnergy(EnergyMLP(2, width=4, key=KEY)).fit_base(data, 0.5)
    cov = jnp.cov(data.T, bias=True) + 0.25 * jnp.eye(2)
    exact = dist.MultivariateNormal(data.mean(0), cov)
    x = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(-network(x), exact.log_prob(x), rtol=1e-5)
    learned = EnergyDistribution(network.energy, (2,), log_normalizer=network.log_normalizer)
    np.testing.assert_allclose(learned.log_prob(x), exact.log_prob(x), rtol=1e-5)


def test_without_a_base_nothing_is_fitted():
    network = NormalizedEnergy(lambda x: jnp.sum(x**2))
    assert network.fit_base(jnp.ones((5, 2))) is network


def test_the_log_normalizer_of_the_base():
    np.testing.assert_allclose(GaussianBase.standard(3).log_normalizer, 1.5 * np.log(2 * np.pi))


def conditional(**options):
    """exp(c) x² / 2, of which log Z(c) is ½ log 2π - c / 2."""
    return NormalizedEnergy(lambda x, c: 0.5 * jnp.exp(c[0]) * jnp.sum(x**2), **options)


def test_a_normalizer_for_each_condition():
    network = conditional(log_normalizer=1.0, of_condition=lambda c: 10 * c[0])
    np.testing.assert_allclose(network(jnp.ones(1), jnp.zeros(1)), 1.5)
    np.testing.assert_allclose(network(jnp.zeros(1), jnp.ones(1)), 11.0)
    with pytest.raises(ValueError, match="a normalizer for each condition, and was given none"):
        network(jnp.ones(1))
    with pytest.raises(ValueError, match=r"one number for a condition, got the shape \(1,\)"):
        conditional(of_condition=lambda c: c)(jnp.ones(1), jnp.ones(1))


def test_refusals_of_the_amortized_normalizer():
    network = LogNormalizerMLP(2, width=4, key=KEY)
    with pytest.raises(ValueError, match=r"one condition of shape \(2,\), got \(3,\)"):
        network(jnp.ones(3))
    with pytest.raises(ValueError, match=r"conditions must have the shape \(n, 2\), got none"):
        network.fit_base(None)
    with pytest.raises(ValueError, match="columns 1"):
        network.fit_base(np.array([[1.0, 0.0], [2.0, 0.0]]))


def largest_error_of_log_z(of_condition):
    """Learn log Z(c) by NCE with an energy that is known, and compare it with the exact one."""
    rng = np.random.default_rng(0)
    c = rng.uniform(-1, 1, (20_000, 1)).astype(np.float32)
    x = (rng.normal(size=c.shape) * np.exp(-c / 2)).astype(np.float32)
    noise = dist.Normal(jnp.zeros(1), 1.5).to_event(1)
    result = fit(
        KEY,
        conditional(of_condition=of_condition),
        x,
        NoiseContrastiveEstimation(noise, num_noise=4),
        condition=c,
        num_steps=1_000,
        batch_size=500,
        learning_rate=1e-2,
        validation_fraction=0.0,
        progress_bar=False,
    )
    at = jnp.linspace(-0.9, 0.9, 19)[:, None]
    # At x = 0 the energy is the normalizer.
    learned = jax.vmap(lambda c: result.network(jnp.zeros(1), c))(at)
    exact = 0.5 * np.log(2 * np.pi) - at[:, 0] / 2
    return float(jnp.max(jnp.abs(learned - exact))), result.network


def test_nce_learns_log_z_of_all_conditions():
    error, network = largest_error_of_log_z(LogNormalizerMLP(1, width=32, key=KEY))
    assert error < 0.05
    # One number for all conditions cannot.
    assert largest_error_of_log_z(lambda c: 0.0 * c[0])[0] > 0.3

    def model():
        c = numpyro.sample("c", dist.Normal(jnp.zeros(1), 1.0).to_event(1))
        x = EnergyDistribution(network, (1,), condition=c, log_normalizer=0.0)
        numpyro.sample("x", x, obs=jnp.ones(1))

    check_model(model)  # the normalizer is in the energy: nothing is doubly intractable
