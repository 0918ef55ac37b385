"""Replicated data of models that NumPyro's ``Predictive`` alone does not take."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

from numpyro_score.diagnostics import to_arviz
from numpyro_score.infer import MALA, MCMC


def test_latent_sites_of_a_loop_are_replicated():
    def model(y=None):
        def step(x, y):
            x = numpyro.sample("x", dist.Normal(x, 1.0))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
            return x, None

        scan(step, 0.0, y, length=3)

    mcmc = MCMC(MALA(model), num_warmup=0, num_samples=4, progress_bar=False)
    mcmc.run(jax.random.key(0), jnp.arange(3.0))
    data = to_arviz(mcmc, posterior_predictive=2, key=jax.random.key(1))
    assert data["posterior_predictive"]["y"].shape == (1, 2, 3)
