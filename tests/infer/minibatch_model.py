"""The models that kernels with minibatches are checked on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_score import infer

NUM_ROWS, BATCH = 12, 4
Y = jnp.linspace(0.0, 4.0, NUM_ROWS)


class MinibatchCase(NamedTuple):
    """A kernel, and options under which it samples a posterior of standard deviation near 1."""

    cls: Any
    options: dict[str, Any]

    def make(self, model: Callable[..., Any] | None = None, **options: Any) -> Any:
        return self.cls(model, **self.options | options)


KERNELS = {
    "sgld": MinibatchCase(infer.SGLD, {"step_size": 0.02}),
    "sghmc": MinibatchCase(
        infer.SGHMC, {"step_size": 0.05, "alpha": 2.0, "num_integration_steps": 4}
    ),
    "sgnht": MinibatchCase(infer.SGNHT, {"step_size": 0.05, "alpha": 2.0}),
}
CASES = pytest.mark.parametrize("name", KERNELS)


def model(y):
    """Two sites of different support and shape, and a plate that subsamples."""
    loc = numpyro.sample("loc", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    scale = numpyro.sample("scale", dist.LogNormal(0.5, 0.3))
    numpyro.deterministic("total", loc.sum())
    with numpyro.plate("rows", NUM_ROWS, subsample_size=BATCH) as rows:
        numpyro.sample("y", dist.Normal(loc.mean(), scale), obs=y[rows])


def make_mcmc(
    name,
    *,
    model=model,
    cls=infer.MCMC,
    num_chains=1,
    chain_method="vectorized",
    kernel=None,
    **opts,
):
    opts = {"num_warmup": 30, "num_samples": 20, "progress_bar": False} | opts
    sampler = KERNELS[name].make(model, **kernel or {})
    return cls(sampler, num_chains=num_chains, chain_method=chain_method, **opts)


def gaussian_model(y, noise, subsample_size=10):
    """Mean of rows ``(N, d)``: a Gaussian posterior with the same variance in each coordinate."""
    size, dim = y.shape
    loc = numpyro.sample("loc", dist.Normal(0.0, 10.0).expand([dim]).to_event(1))
    with numpyro.plate("rows", size, subsample_size=subsample_size) as rows:
        numpyro.sample("y", dist.Normal(loc, noise).to_event(1), obs=y[rows])


class GaussianPosterior(NamedTuple):
    """Data for :func:`gaussian_model`, and what is known of its posterior and minibatches."""

    y: jax.Array
    noise: float
    precision: float
    mean: np.ndarray
    gradient_variance: float


def gaussian_posterior(num_rows, dim, noise, batch=10):
    """Data whose columns have the same variance, up to rounding."""
    y = np.random.default_rng(0).normal(size=(num_rows, dim))
    y = 1.0 + noise * (y - y.mean(0)) / y.std(0, ddof=1)
    precision = num_rows / noise**2 + 0.01
    # Of N / B times a sum of B out of N rows without replacement, each of variance 1 / noise².
    variance = num_rows**2 / batch * (1 - batch / num_rows) / noise**2
    mean = y.sum(0) / noise**2 / precision
    return GaussianPosterior(jnp.asarray(y, float), noise, precision, mean, variance)
