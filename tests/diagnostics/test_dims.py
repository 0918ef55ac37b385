"""Names of axes: each plate on its own axis, and a name for every other."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

from numpyro_score.diagnostics import to_arviz
from numpyro_score.infer import MALA


def model():
    free = numpyro.sample("free", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", 5):
        numpyro.deterministic("scalar", 2 * free)
        numpyro.deterministic("another_size", free * jnp.ones(4))
        numpyro.deterministic("filled", free * jnp.ones(5))
    with numpyro.plate("a", 3, dim=-1), numpyro.plate("b", 2, dim=-3):
        numpyro.sample("gap", dist.Normal(free, 1.0))
    with numpyro.plate("b", 2, dim=-2):
        numpyro.sample("weights", dist.Dirichlet(jnp.ones(4)))
        with numpyro.plate("a", 3, dim=-1):
            numpyro.sample("image", dist.Normal(jnp.zeros((3, 4)), 1.0).to_event(2))
    with numpyro.plate("row", 3):
        numpyro.sample("images", dist.Normal(jnp.zeros((3, 4)), 1.0).to_event(2))


@pytest.fixture(scope="module")
def run():
    mcmc = MCMC(MALA(model), num_warmup=2, num_samples=3, progress_bar=False)
    mcmc.run(random.key(0))
    return mcmc, to_arviz(mcmc, scores=False)["posterior"]


@pytest.mark.parametrize(
    ("site", "dims"),
    [
        ("free", ()),
        ("scalar", ()),
        ("another_size", ("another_size_dim_0",)),
        ("filled", ("n",)),
        ("gap", ("b", "gap_dim_1", "a")),
        ("weights", ("b", "weights_dim_1", "weights_dim_2")),
        ("image", ("b", "a", "row", "col")),
        ("images", ("row", "images_row", "col")),
    ],
)
def test_axes_are_named_after_what_fills_them(run, site, dims):
    mcmc, posterior = run
    assert posterior[site].dims == ("chain", "draw", *dims)
    # A wrong name would stretch the axis to the size that another site has, with NaN.
    np.testing.assert_array_equal(
        posterior[site].values, mcmc.get_samples(group_by_chain=True)[site]
    )
