"""Blocks of NumPyro's ``Gibbs``: what moves with their siblings, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import DiscreteGibbs, Gibbs
from numpyro.infer.gibbs import GIBBS_SITES_KWARG, conditioned

from numpyro_score import infer
from numpyro_score.infer import MALA, AdjustedMCLMC, ModelError


def run(kernel, *args, library=infer):
    mcmc = library.MCMC(kernel, num_warmup=20, num_samples=20, progress_bar=False)
    mcmc.run(jax.random.key(0), *args)


def given(**siblings):
    """The keyword by which Gibbs hands a block the values of the others."""
    return {GIBBS_SITES_KWARG: siblings}


def scaled_model():
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    numpyro.sample("x", dist.Normal(0.0, scale).expand([4]).to_event(1))


def test_a_block_that_is_tuned_as_a_whole_follows_its_siblings():
    """Started for siblings a hundred times as large as what they come to."""
    kernel = AdjustedMCLMC(scaled_model).wrap_model(conditioned)
    start = kernel.init(jax.random.key(0), 100, {"x": jnp.ones(4)}, (), given(scale=1.0))
    now = given(scale=0.01)

    @jax.jit
    def draws(state):
        def step(state, _):
            state = kernel.sample(kernel.refresh(state, (), now), (), now)
            return state, state.z["x"]

        return jax.lax.scan(step, state, None, length=600)

    _, x = draws(start)
    assert len(np.unique(x[:100, 0])) > 50, "it moves while the others warm up"
    np.testing.assert_allclose(np.std(x[100:]), 0.01, rtol=0.2)


@pytest.mark.parametrize("library", [infer, numpyro.infer])
def test_a_start_that_is_not_finite_is_refused(library):
    def model(y):
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        x = numpyro.sample("x", dist.Normal(k, 1.0))
        numpyro.factor("likelihood", x * y)

    kernel = Gibbs([(DiscreteGibbs(model), ["k"]), (MALA(model), ["x"])])
    with pytest.raises(RuntimeError, match="Cannot find valid initial parameters"):
        run(kernel, jnp.array(jnp.nan), library=library)


def test_a_support_that_holds_arrays():
    """Gibbs asks for the constrained values of a block without those of the others."""

    def model(high):
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        x = numpyro.sample("x", dist.Uniform(jnp.zeros(2), high))
        numpyro.factor("likelihood", k * x.sum())

    kernel = MALA(model).wrap_model(conditioned)
    start = {"x": jnp.array([0.9, 4.0])}
    state = kernel.init(jax.random.key(0), 10, start, (jnp.array([1.0, 5.0]),), given(k=1))
    for scale in (1.0, 2.0):  # the arrays are those of the arguments
        constrain = kernel.get_constrain_fn((scale * jnp.array([1.0, 5.0]),), {})
        np.testing.assert_allclose(constrain(state.z)["x"], scale * start["x"], rtol=1e-5)


def bounded_model():
    k = numpyro.sample("k", dist.Bernoulli(0.5))
    c = numpyro.sample("c", dist.Gamma(3.0 + k, 1.0))
    numpyro.sample("x", dist.Uniform(0.0, c))


def test_a_support_that_depends_on_another_block():
    blocks = [(MALA(bounded_model), ["x"]), (MALA(bounded_model), ["c"])]
    kernel = Gibbs([(DiscreteGibbs(bounded_model), ["k"]), *blocks])
    with pytest.raises(ModelError, match=r"The supports of sites \['x'\] depend .* in one block"):
        run(kernel)


def test_a_support_that_depends_on_the_block_itself():
    kernel = MALA(bounded_model).wrap_model(conditioned)
    start = {"c": jnp.array(30.0), "x": jnp.array(29.0)}
    state = kernel.init(jax.random.key(0), 10, start, (), given(k=1))
    constrained = kernel.get_constrain_fn((), {})(state.z)
    assert constrained.keys() == start.keys()
    for name, value in start.items():
        np.testing.assert_allclose(constrained[name], value, rtol=1e-5)


def test_a_support_that_depends_on_a_site_and_is_that_of_an_event():
    """Without Gibbs too: NumPyro's own draws of x would lie below the first c that it saw."""

    def model():
        c = numpyro.sample("c", dist.Gamma(3.0, 1.0))
        numpyro.sample("x", dist.Uniform(0.0, c).expand([2]).to_event(1))

    kernel = MALA(model)
    kernel.init(jax.random.key(0), 10)
    draw = kernel.postprocess_fn((), {})({"c": jnp.log(7.0), "x": jnp.zeros(2)})
    np.testing.assert_allclose(draw["x"], [3.5, 3.5], rtol=1e-5)


@pytest.mark.parametrize("num_chains", [1, 2])
def test_runs_from_one_state_follow_their_keys(num_chains):
    """NumPyro's Gibbs draws from the keys of its blocks, and from its own only where it starts."""

    def model():
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(k, 1.0))

    kernel = Gibbs([(DiscreteGibbs(model), ["k"]), (MALA(model), ["x"])])
    mcmc = infer.MCMC(
        kernel,
        num_warmup=10,
        num_samples=10,
        num_chains=num_chains,
        chain_method="sequential",
        progress_bar=False,
    )
    mcmc.warmup(jax.random.key(0))
    state = mcmc.post_warmup_state

    def draws(key):
        mcmc.post_warmup_state = state
        mcmc.run(key)
        return mcmc.get_samples(group_by_chain=True)["x"]

    own = draws(state.rng_key)
    np.testing.assert_array_equal(own, draws(state.rng_key))
    other = draws(jax.random.key(1))
    assert np.mean(own == other) < 0.5
    assert np.mean(draws(jax.random.key(2)) == other) < 0.5
    if num_chains > 1:
        assert np.mean(other[0] == other[1]) < 0.5
