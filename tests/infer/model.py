"""The model that the contracts of kernels are checked on."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

from numpyro_score.distributions import EnergyDistribution
from tests.cases import KERNELS, POOLED

CASES = pytest.mark.parametrize("name", KERNELS)
# What the base classes alone decide is asked of one kernel of each kind, not of all.
FAMILIES = ["mala", "ghmc", "mclmc"]
ONE_OF_EACH_STATE = ["mala", "ula", "ghmc", "hmc", "mclmc"]
CASES_BY_FAMILY = pytest.mark.parametrize("name", FAMILIES)
# Without the one that takes seconds to compile, where MCMC decides and not the kernel.
TWO_FAMILIES = pytest.mark.parametrize("name", ["mala", "ghmc"])
Y = np.array([1.0, 2.0, 4.0], np.float32)


def model(y):
    """Three sites of different shape and support."""
    loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    x = numpyro.sample("x", EnergyDistribution(lambda x: 0.5 * jnp.sum((x - 1) ** 2), (2,)))
    numpyro.deterministic("total", x.sum())
    numpyro.sample("y", dist.Normal(loc + x.mean(), scale).expand([3]).to_event(1), obs=y)


def make_mcmc(name, *, model=model, num_chains=1, chain_method="vectorized", **options):
    options = {"num_warmup": 60, "num_samples": 40, "progress_bar": False} | options
    kernel = (KERNELS | POOLED)[name].make(model)
    return MCMC(kernel, num_chains=num_chains, chain_method=chain_method, **options)
