"""A run that goes on from a state: of other data, of a warm-up that is not over, of other keys."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random

from numpyro_score.infer import MALA, MCMC
from tests.cases import KERNELS, POOLED
from tests.infer.model import Y, model

MANY = np.asarray(random.normal(random.key(0), (100,)))


def located(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    nu = numpyro.sample("nu", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mu + nu, 1.0).expand([100]).to_event(1), obs=y)


def make_mcmc(name, model, **options):
    kernel = (KERNELS | POOLED)[name].make(model)
    options = {"num_warmup": 200, "num_samples": 400, "progress_bar": False} | options
    return MCMC(kernel, **options)


@pytest.mark.parametrize(
    ("name", "num_chains"), [("mala", 1), ("mala_pooled", 3), ("hmc", 3), ("mclmc", 1)]
)
def test_a_warmup_of_other_data_leaves_no_potential_behind(name, num_chains):
    mcmc = make_mcmc(name, located, num_chains=num_chains, chain_method="vectorized")
    mcmc.warmup(random.key(1), MANY)
    mcmc.run(random.key(2), MANY + 5)
    draws = mcmc.get_samples(group_by_chain=True)
    total = np.asarray(draws["mu"] + draws["nu"])[:, 100:]
    # The posterior of the sum has a standard deviation of .1.
    np.testing.assert_allclose(total.mean(1), MANY.mean() + 5, atol=0.3)


def test_the_same_data_in_other_arrays_change_nothing():
    runs = []
    for y in (MANY, MANY.copy()):
        mcmc = make_mcmc("mala", located, num_samples=20)
        mcmc.warmup(random.key(1), MANY)
        mcmc.run(random.key(2), y)
        runs.append(mcmc.get_samples()["mu"])
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize("name", ["mala", "mclmc"])
def test_a_warmup_that_is_not_over_is_told(name):
    short, long = (make_mcmc(name, model, num_warmup=n, num_samples=5) for n in (30, 90))
    short.warmup(random.key(0), Y)
    long.post_warmup_state = short.post_warmup_state
    with pytest.warns(UserWarning, match="has taken 30 steps.*has 90.*the first 60 draws"):
        long.run(random.key(1), Y)


def test_keys_of_another_number_of_chains_are_refused():
    mcmc = make_mcmc("mala", model, num_chains=3, chain_method="sequential")
    with pytest.raises(ValueError, match="one for each of 3 chains; got 2"):
        mcmc.run(random.split(random.key(0), 2), Y)


@pytest.mark.parametrize("num_chains", [3, 4])  # the model has four parameters
def test_what_a_pool_shares_is_collected_for_each_chain(num_chains):
    chains = {"num_chains": num_chains, "chain_method": "vectorized"}
    mcmc = make_mcmc("chees", model, num_warmup=20, num_samples=6, **chains)
    fields = ("adapt_state.inverse_mass_matrix", "adapt_state.step_size", "i")
    mcmc.run(random.key(0), Y, extra_fields=fields)
    kept = mcmc.get_extra_fields(group_by_chain=True)
    assert kept["adapt_state.inverse_mass_matrix"].shape == (num_chains, 6, 4)
    assert kept["adapt_state.step_size"].shape == kept["i"].shape == (num_chains, 6)
    metric = np.asarray(mcmc.last_state.adapt_state.inverse_mass_matrix)
    np.testing.assert_allclose(
        kept["adapt_state.inverse_mass_matrix"], np.broadcast_to(metric, (num_chains, 6, 4))
    )


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (MALA, {}),
        (MALA, {"num_chains": 2, "chain_method": "vectorized"}),
        (numpyro.infer.NUTS, {}),
    ],
)
def test_a_gradient_that_is_not_finite_is_refused_at_the_start(kernel, options):
    def broken():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.factor("f", jnp.where(x > 100, jnp.sqrt(x - 100), 0.0))

    mcmc = MCMC(kernel(broken), num_warmup=5, num_samples=5, progress_bar=False, **options)
    with pytest.raises(RuntimeError, match=r"gradient|initial parameters"):
        mcmc.run(random.key(0))
