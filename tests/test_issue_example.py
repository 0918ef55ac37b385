"""The main job from end to end: learn a density, write it in a model, sample it, read it."""

from __future__ import annotations

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

from numpyro_score import networks, objectives
from numpyro_score.distributions import EnergyDistribution, ScoreDistribution
from numpyro_score.infer import MALA
from numpyro_score.networks import score_fn
from numpyro_score.training import fit
from tests.statistics import NUM_ERRORS, Moments, assert_recovers

KINDS = pytest.mark.parametrize(
    ("network_cls", "distribution_cls"),
    [(networks.EnergyMLP, EnergyDistribution), (networks.ScoreMLP, ScoreDistribution)],
    ids=["energy", "score"],
)


@KINDS
def test_what_a_user_writes(network_cls, distribution_cls):
    rng = np.random.default_rng(0)
    train_images = rng.normal(size=(200, 8))
    A = jnp.asarray(rng.normal(size=(5, 8)), float)
    y = A @ jnp.ones(8)

    net = network_cls(8, width=16, depth=2, key=jax.random.key(0))
    result = fit(
        jax.random.key(1),
        net,
        train_images,
        objectives.DenoisingScoreMatching(noise_scale=0.2),
        num_steps=20,
        batch_size=32,
    )
    prior = distribution_cls(result.network, event_shape=(8,))

    def model(A, y):
        x = numpyro.sample("x", prior)
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(A @ x, noise).to_event(1), obs=y)

    mcmc = MCMC(
        MALA(model), num_warmup=100, num_samples=50, num_chains=4, chain_method="vectorized"
    )
    mcmc.run(jax.random.key(2), A, y, extra_fields=("accept_prob", "potential_energy"))
    table = az.summary(az.from_numpyro(mcmc))

    assert result.losses.shape == (20,)
    samples = mcmc.get_samples()
    assert samples["x"].shape == (200, 8)
    assert samples["noise"].shape == (200,)
    assert mcmc.get_extra_fields(group_by_chain=True)["accept_prob"].shape == (4, 50)
    assert {*table.index} == {"noise", *(f"x[{i}]" for i in range(8))}


# -- a posterior that is known -----------------------------------------------------------------

MEAN = np.array([1.0, -2.0])
COVARIANCE = np.array([[1.0, 0.6], [0.6, 0.8]])
NOISE_SCALE = 0.7
Y, Y_SD = np.array([4.0, 1.0]), 2.0


def gaussian_posterior(mean, covariance):
    """Mean and covariance given ``Y``, for a prior N(mean, covariance)."""
    precision = np.linalg.inv(covariance)
    posterior = np.linalg.inv(precision + np.eye(2) / Y_SD**2)
    return posterior @ (precision @ mean + Y / Y_SD**2), posterior


def learning_error(score, mean, covariance):
    """Bound what the error of a learned prior's score does to posterior means and sds, in sds.

    The learned posterior is the exact one times exp(δ), with ∇δ the error of the score. To first
    order the mean of g moves by Cov(g, δ) ≤ sd(g) sd(δ), and sd(δ)² ≤ E‖∇δ‖² λ, by Poincaré's
    inequality for a Gaussian whose covariance has the largest eigenvalue λ. That is sd(δ) sds for
    a mean; for a variance (g a square, of sd √2 variances) √2 sd(δ) variances, half as much for
    an sd.
    """
    posterior_mean, posterior = gaussian_posterior(mean, covariance)
    x = np.random.default_rng(2).multivariate_normal(posterior_mean, posterior, size=4000)
    x = jnp.asarray(x, float)
    error = jax.vmap(score)(x) + (x - mean) @ np.linalg.inv(covariance)
    return float(jnp.sqrt(jnp.mean(jnp.sum(error**2, 1)) * np.linalg.eigvalsh(posterior)[-1]))


@KINDS
def test_posterior_under_a_learned_gaussian_is_that_of_the_smoothed_gaussian(
    network_cls, distribution_cls
):
    data = np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, size=8000)
    result = fit(
        random.key(1),
        network_cls(2, width=32, key=random.key(0)),
        data,
        objectives.DenoisingScoreMatching(NOISE_SCALE),
        num_steps=500,
        progress_bar=False,
    )

    def model(y):
        x = numpyro.sample("x", distribution_cls(result.network, (2,)))
        numpyro.sample("y", dist.Normal(x, Y_SD).to_event(1), obs=y)

    mcmc = MCMC(
        MALA(model, dense_mass=True),
        num_warmup=500,
        num_samples=3000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(2), Y)
    draws = mcmc.get_samples(group_by_chain=True)["x"]

    smoothed = COVARIANCE + NOISE_SCALE**2 * np.eye(2)
    error = learning_error(score_fn(result.network, (2,)), MEAN, smoothed)
    assert error < 0.1, f"learned too badly to tell: {error:.2f}"

    def moments(covariance):
        mean, posterior = gaussian_posterior(MEAN, covariance)
        sd = np.sqrt(np.diagonal(posterior))
        # A bound, not a standard error: it counts once, so it goes in divided by their number.
        bound = error * sd / NUM_ERRORS
        return Moments(mean, sd, bound, bound / np.sqrt(2))

    assert_recovers(draws, moments(smoothed))
    with pytest.raises(AssertionError, match="off"):  # the data without the noise of the objective
        assert_recovers(draws, moments(COVARIANCE))
