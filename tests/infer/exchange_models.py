"""Models whose normalizer the tests of the exchange algorithm know, and the kernel does not."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.distributions import constraints

from numpyro_score import infer
from numpyro_score.distributions import EnergyDistribution

SHAPE, RATE = 3.0, 2.0
Y = np.array([0.5, -1.0, 2.0], np.float32)
Y_TILTED = np.sqrt(np.random.default_rng(5).uniform(size=20)).astype(np.float32)
Y_NORMAL = (100.0 + 0.02 * np.random.default_rng(6).normal(size=8)).astype(np.float32)
SHORT = {"num_warmup": 40, "num_samples": 30, "num_chains": 2}


def condition_of(distribution):
    """The condition under a plate."""
    while not hasattr(distribution, "condition"):
        distribution = distribution.base_dist
    return distribution.condition


def precision_model(y, **options):
    """f(y; θ) = θ y² / 2 with Z = √(2π / θ), and a Gamma prior: the posterior is a Gamma."""
    theta = numpyro.sample("theta", dist.Gamma(SHAPE, RATE))
    energy = lambda y, theta: 0.5 * theta * y**2  # noqa: E731
    d = EnergyDistribution(energy, (), condition=theta, condition_event_dim=0, **options)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", d, obs=y)


def draw_normal(rng_key, distribution):
    return random.normal(rng_key, distribution.shape()) / jnp.sqrt(condition_of(distribution))


def tilted_model(y):
    """f(y; θ) = -θ y on (0, 1), with Z = (exp θ - 1) / θ, without a plate."""
    theta = numpyro.sample("theta", dist.Normal(0.0, 3.0))
    d = EnergyDistribution(
        lambda y, theta: -theta * y,
        (),
        condition=theta,
        condition_event_dim=0,
        support=constraints.unit_interval,
    )
    numpyro.sample("y", d, obs=y)


def draw_tilted(rng_key, distribution):
    theta = condition_of(distribution)
    u = random.uniform(rng_key, distribution.shape())
    return jnp.log1p(u * jnp.expm1(theta)) / theta


def tilted_posterior(total, num_rows):
    """Grid of θ, and the posterior's weights on it, for sums of the data ``total``."""
    theta = np.linspace(-14.0, 14.0, 4000)  # without 0
    log_z = np.log(np.expm1(theta) / theta)
    log_p = -0.5 * (theta / 3.0) ** 2 - num_rows * log_z + np.multiply.outer(total, theta)
    weights = np.exp(log_p - log_p.max(-1, keepdims=True))
    return theta, weights / weights.sum(-1, keepdims=True)


def normal_model(y):
    """A location and the log of a scale: of different size, and correlated by their prior."""
    log_scale = numpyro.sample("log_scale", dist.Normal(-4.0, 0.5))
    loc = numpyro.sample("loc", dist.Normal(50.0 * (log_scale + 4.0), 10.0))
    energy = lambda y, c: 0.5 * ((y - c[0]) * jnp.exp(-c[1])) ** 2  # noqa: E731
    condition = jnp.stack([100.0 + 1e-3 * loc, log_scale])
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", EnergyDistribution(energy, (), condition=condition), obs=y)


def draw_located(rng_key, distribution):
    loc, log_scale = condition_of(distribution)
    return loc + jnp.exp(log_scale) * random.normal(rng_key, distribution.shape())


def normal_posterior():
    """Mean and covariance of ``(loc, log_scale)``, on a grid."""
    loc, log_scale = np.meshgrid(np.linspace(-90, 130, 601), np.linspace(-5.5, -2, 501))
    y = Y_NORMAL.astype(np.float64)[:, None, None]
    log_p = -0.5 * ((log_scale + 4) / 0.5) ** 2 - 0.5 * ((loc - 50 * (log_scale + 4)) / 10) ** 2
    log_p -= len(y) * log_scale + 0.5 * ((y - 100 - 1e-3 * loc) ** 2).sum(0) / np.exp(2 * log_scale)
    weights = np.exp(log_p - log_p.max())
    points = np.stack([loc.ravel(), log_scale.ravel()])
    return np.average(points, axis=1, weights=weights.ravel()), np.cov(
        points, aweights=weights.ravel() / weights.sum(), ddof=0
    )


def run(
    kernel,
    *args,
    mcmc_cls=infer.MCMC,
    seed=0,
    extra_fields=("accept_prob",),
    init_params=None,
    **options,
):
    options = {"num_warmup": 1000, "num_samples": 4000, "num_chains": 4} | options
    options = {"chain_method": "vectorized", "progress_bar": False} | options
    mcmc = mcmc_cls(kernel, **options)
    mcmc.run(random.key(seed), *args, extra_fields=extra_fields, init_params=init_params)
    return mcmc
