"""Products of diffusions as priors: all modes, with the weights that the product and data give."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size

from numpyro_score.distributions import (
    DiffusionDistribution,
    EnergyDistribution,
    Mixture,
    Product,
    ScoreDistribution,
)
from numpyro_score.distributions.product import known_by_score
from numpyro_score.infer import (
    MALA,
    MCMC,
    ModelError,
    ReplicaExchange,
    TemperedSMC,
)
from numpyro_score.infer._score_sites import score_part
from numpyro_score.samplers import AnnealedParticles
from tests.mixtures import noised, product_of
from tests.samplers.test_composed_diffusion import FACTORS, VE_SDE

MATRIX, DATA, NOISE = np.array([[1.0, 1.0]]), np.array([0.5]), 3.0
EXACT, _ = product_of(*(noised(factor, VE_SDE) for factor in FACTORS)).posterior(
    MATRIX, DATA, NOISE
)
RIGHT = EXACT.weights[EXACT.means[:, 0] > 0].sum()


def product(kind, **options):
    factors = [
        DiffusionDistribution(getattr(factor, kind)(VE_SDE), VE_SDE, (2,)) for factor in FACTORS
    ]
    return Product(factors, **options)


def model_of(prior):
    def model(y):
        with numpyro.plate("rows", 1):
            x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(MATRIX @ x[0], NOISE).to_event(1), obs=y)

    return model


@pytest.mark.statistics
def test_replica_exchange_weighs_the_modes_of_a_product():
    kernel = ReplicaExchange(MALA(model_of(product("energy"))), num_replicas=8, num_moves=2)
    mcmc = MCMC(
        kernel,
        num_warmup=300,
        num_samples=500,
        num_chains=16,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), DATA)
    inside = np.asarray(mcmc.get_samples(group_by_chain=True)["x"][..., 0, 0] > 0, float)
    error = np.sqrt(RIGHT * (1 - RIGHT) / effective_sample_size(inside))
    assert error < 0.03
    assert abs(inside.mean() - RIGHT) < 5 * error


@pytest.mark.statistics
def test_particles_start_as_one_population_of_a_product():
    prior = product("score", sampler=AnnealedParticles(num_levels=30, num_moves=3))
    smc = TemperedSMC(model_of(prior), 300, num_chains=12, num_moves=3, progress_bar=False)
    smc.run(jax.random.key(0), DATA)
    x = np.asarray(smc.get_samples(group_by_chain=True)["x"])[..., 0, :]
    shares = (x[..., 0] > 0).mean(1)
    error = shares.std(ddof=1) / np.sqrt(len(shares))
    assert error < 0.03
    assert abs(shares.mean() - RIGHT) < 5 * error
    exact = EXACT.weights @ EXACT.means
    means = x.mean(1)
    errors = means.std(0, ddof=1) / np.sqrt(len(means))
    assert np.all(np.abs(means.mean(0) - exact) < 5 * errors)


def test_draws_of_a_product_of_diffusions():
    """With a condition for each of a batch, and a factor that has no noise levels."""
    condition = jnp.array([[0.0, 0.0], [2.0, -2.0]])
    learned = DiffusionDistribution(
        lambda x, t, c: (c - x) / (1 + VE_SDE.marginal_std(t) ** 2),
        VE_SDE,
        (2,),
        condition=condition,
    )
    factor = EnergyDistribution(lambda x: 0.5 * jnp.sum((x - 4.0) ** 2), (2,))
    d = Product([learned, factor], [2.0, 1.0], sampler=AnnealedParticles(500, num_levels=30))
    draws = d.sample(jax.random.key(0), (400,))
    assert draws.shape == (400, 2, 2)
    # N(c, 1)² N(4, 1) is N((2 c + 4) / 3, 1 / 3); of particles that were resampled, half count.
    exact = (2 * condition + 4.0) / 3
    np.testing.assert_allclose(draws.mean(0), exact, atol=5 * np.sqrt(1 / 3 / 200))
    np.testing.assert_allclose(draws.std(0), np.sqrt(1 / 3), rtol=0.2)
    assert d.sample(jax.random.key(0)).shape == (2, 2)


def test_what_a_product_cannot_draw_is_told():
    other = DiffusionDistribution(lambda x, t: -x, VE_SDE.__class__(0.1, 5.0), (2,))
    with pytest.raises(NotImplementedError, match=r"different SDEs.*ReplicaExchange"):
        Product([*product("energy").factors, other]).sample(jax.random.key(0))
    lost = DiffusionDistribution(lambda x, t: jnp.where(x > 0, jnp.nan, -x), VE_SDE, (2,))
    d = Product([lost], sampler=AnnealedParticles(20, num_levels=3))
    with pytest.raises(FloatingPointError, match="of the draws are not finite"):
        d.sample(jax.random.key(0), (20,))


def test_a_mixture_of_diffusions_has_no_noise_levels():
    """Its components would lose the normalizers that their weights are about."""
    prior = Mixture(product("energy").factors)
    with pytest.raises(ValueError, match="has no latent site with a"):
        MCMC(
            ReplicaExchange(MALA(model_of(prior))), num_warmup=1, num_samples=1, progress_bar=False
        ).run(jax.random.key(0), DATA)


def test_a_score_inside_a_mixture_has_no_local_path():
    part = ScoreDistribution(lambda x: -x, (2,), log_normalizer=1.8)
    product_of_scores = Product([part.expand([3]), part])
    assert score_part("x", product_of_scores.expand([2, 3])) is product_of_scores
    assert not known_by_score(part.expand([3])), "what is replaced is the score, not its wrapper"
    assert score_part("x", Product([EnergyDistribution(jnp.sum, (2,))])) is None
    with pytest.raises(ModelError, match="ScoreDistribution inside a Product"):
        score_part("x", Product([Mixture([part, part])]))
