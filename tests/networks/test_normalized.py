"""An energy with a constant."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from numpyro_score.distributions import EnergyDistribution
from numpyro_score.networks import EnergyMLP, GaussianBase, NormalizedEnergy

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
