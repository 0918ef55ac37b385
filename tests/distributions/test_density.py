"""Density networks as distributions: exact draws, and a likelihood that is not intractable."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import numpyro_score
from numpyro_score.distributions import (
    DensityDistribution,
    EnergyDistribution,
    estimate_log_normalizer,
)
from numpyro_score.infer import MALA, MCMC, DoublyIntractableError, check_model
from numpyro_score.networks import (
    VAE,
    EnergyMLP,
    FlowDensity,
    TiltedEnergy,
    from_distribution,
)
from tests.networks.densities import shaken
from tests.objectives.gaussian import standard_errors
from tests.statistics import Moments, assert_recovers

KEY = jax.random.key(0)
SHIFTED = from_distribution(
    lambda p, c: dist.Normal(c, jnp.exp(p)).to_event(1), jnp.array([0.0, 0.5])
)
SCALE = np.exp([0.0, 0.5])


def test_a_flow_has_its_draws_and_its_normalizer():
    network = shaken(FlowDensity(2, num_layers=2, width=8, depth=1, key=KEY))
    d = DensityDistribution(network, (2,))
    assert d.normalized
    assert d.sample(KEY, (2, 3)).shape == (2, 3, 2)
    assert repr(d) == (
        "DensityDistribution(FlowDensity, batch_shape=(), event_shape=(2,), normalized)"
    )
    x = d.sample(KEY, (5,))
    np.testing.assert_allclose(d.log_prob(x), -jax.jit(jax.vmap(network))(x), rtol=1e-5)


def test_its_normalizer_is_none():
    """Estimated from a standard normal, which knows nothing of its own draws."""
    d = DensityDistribution(SHIFTED, (2,), condition=jnp.array([0.5, -0.5]))
    found = estimate_log_normalizer(d, KEY, num_particles=300, num_temperatures=20)
    assert abs(found.log_normalizer) < 5 * found.standard_error < 0.3


def test_a_batch_of_conditions():
    condition = jnp.arange(6.0).reshape(3, 2)
    d = DensityDistribution(SHIFTED, (2,), condition=condition)
    assert d.batch_shape == (3,)
    draws = d.sample(KEY, (2_000,))
    assert draws.shape == (2_000, 3, 2)
    white = ((draws - condition) / SCALE).reshape(2_000, -1)
    assert np.abs(standard_errors(white)).max() < 5
    assert np.abs(standard_errors(white**2 - 1)).max() < 5
    exact = dist.Normal(condition, SCALE).to_event(1)
    np.testing.assert_allclose(d.log_prob(draws), exact.log_prob(draws), rtol=1e-4)


def test_a_bound_is_told():
    d = DensityDistribution(VAE((2,), 1, width=4, key=KEY), (2,))
    assert "VAE" in repr(d)
    assert "log_prob is a lower bound" in repr(d)


def test_a_likelihood_of_a_latent_condition_and_a_tilted_prior():
    """Both posteriors are normals in closed form."""
    tilted = TiltedEnergy(
        from_distribution(lambda p: dist.Normal(p, 1.0).to_event(1), jnp.array([1.0, -1.0])),
        lambda x: 0.5 * jnp.sum(x**2),
    )
    y = 1.0 + jax.random.normal(KEY, (10, 2)) * SCALE

    def model(y, log_normalizer=0.0):
        numpyro.sample("x", EnergyDistribution(tilted, (2,)))
        m = numpyro.sample("m", dist.Normal(0.0, 2.0))
        if log_normalizer is None:
            likelihood = EnergyDistribution(SHIFTED, (2,), condition=m[None])
        else:
            likelihood = DensityDistribution(SHIFTED, (2,), condition=m[None])
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", likelihood, obs=y)

    check_model(model, y)
    with pytest.raises(DoublyIntractableError):
        check_model(model, y, None)
    mcmc = MCMC(
        MALA(model),
        num_warmup=500,
        num_samples=2_000,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(KEY, y)
    draws = mcmc.get_samples(group_by_chain=True)
    assert_recovers(draws["x"], Moments(np.array([0.5, -0.5]), np.full(2, np.sqrt(0.5))))
    precision = 0.25 + (len(y) / SCALE**2).sum()
    mean = (np.asarray(y) / SCALE**2).sum() / precision
    assert_recovers(draws["m"], Moments(mean, np.sqrt(1 / precision)))


def test_it_comes_back_from_a_file(tmp_path):
    network = FlowDensity(2, width=8, condition_size=2, key=KEY)
    d = DensityDistribution(network, (2,), condition=jnp.ones((3, 2)))
    numpyro_score.save(tmp_path / "file", d)
    loaded = numpyro_score.load(tmp_path / "file")
    assert type(loaded) is DensityDistribution
    np.testing.assert_array_equal(loaded.sample(KEY), d.sample(KEY))


def test_refusals():
    with pytest.raises(TypeError, match=r"takes a density network .* got EnergyMLP"):
        DensityDistribution(EnergyMLP(2, width=4, key=KEY), (2,))
    d = DensityDistribution(SHIFTED, (2,), condition=jnp.zeros(2))
    with pytest.raises(ValueError, match="normalized by construction"):
        d.with_log_normalizer(1.0)
