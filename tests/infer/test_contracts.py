"""Contracts that every kernel keeps under ``numpyro.infer.MCMC``."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC, NUTS, DiscreteGibbs, Gibbs
from numpyro.infer.gibbs import discrete_latent_sites

from numpyro_score.distributions import ScoreDistribution
from tests.cases import KERNELS, POOLED
from tests.infer.model import (
    CASES,
    CASES_BY_FAMILY,
    FAMILIES,
    ONE_OF_EACH_STATE,
    TWO_FAMILIES,
    Y,
    make_mcmc,
)
from tests.statistics import Moments, assert_recovers


def same(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


# -- chains, keys, starts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "chain_method", "num_chains"),
    [(name, "vectorized", 3) for name in KERNELS]
    + [
        (name, *chains)
        for name in ("mala", "ghmc")
        for chains in (("sequential", 1), ("sequential", 2), (jax.vmap, 2))
    ],
)
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")  # NumPyro's, under vmap
def test_every_chain_method_with_and_without_starts(name, chain_method, num_chains):
    statistic = KERNELS[name].statistic
    mcmc = make_mcmc(name, num_chains=num_chains, chain_method=chain_method)
    fields = ("potential_energy", statistic, "adapt_state.step_size")
    mcmc.run(random.key(0), Y, extra_fields=fields)
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws["x"].shape == (num_chains, 40, 2)
    assert draws["total"].shape == (num_chains, 40)
    np.testing.assert_allclose(draws["total"], draws["x"].sum(-1), rtol=1e-5, atol=1e-5)
    extra = mcmc.get_extra_fields(group_by_chain=True)
    assert set(extra) == {*fields, "diverging"}
    assert all(v.shape[:2] == (num_chains, 40) for v in extra.values())
    assert bool(jnp.isfinite(extra["potential_energy"]).all())
    assert np.ptp(extra["adapt_state.step_size"], axis=1).max() == 0, "fixed after warm-up"
    if num_chains > 1:
        assert not np.array_equal(draws["loc"][0], draws["loc"][1])

    lead = (num_chains,) if num_chains > 1 else ()
    start = {"loc": jnp.full(lead, 3.0), "scale": jnp.zeros(lead), "x": jnp.zeros((*lead, 2))}
    still = make_mcmc(
        name, num_chains=num_chains, chain_method=chain_method, num_warmup=0, num_samples=1
    )
    still.sampler._step_size, still.sampler._adapt_step_size = 1e-10, False
    still.run(random.key(0), Y, init_params=start)
    np.testing.assert_allclose(still.get_samples()["loc"], 3.0, atol=1e-3)


@pytest.mark.parametrize("name", ["mala", "ghmc", *POOLED])
def test_typed_and_legacy_keys_give_the_same_draws(name):
    mcmc = make_mcmc(name, num_chains=2)
    mcmc.run(random.key(3), Y)
    typed = mcmc.get_samples()
    mcmc.run(random.PRNGKey(3), Y)
    assert same(typed, mcmc.get_samples())


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
@pytest.mark.parametrize("chain_method", ["vectorized", "sequential"])
def test_keys_of_other_implementations(impl, chain_method):
    mcmc = make_mcmc("mala", num_chains=2, chain_method=chain_method, num_warmup=300)
    mcmc.run(random.key(3, impl=impl), Y)
    draws = mcmc.get_samples(group_by_chain=True)["x"]
    assert len(np.unique(draws[..., 0])) > 20, "both chains move, and apart"
    assert not np.array_equal(draws[0], draws[1])


@TWO_FAMILIES
def test_thinning_keeps_every_second_draw(name):
    all_draws, thinned = (make_mcmc(name, thinning=t) for t in (1, 2))
    all_draws.run(random.key(0), Y)
    thinned.run(random.key(0), Y)
    np.testing.assert_array_equal(thinned.get_samples()["x"], all_draws.get_samples()["x"][1::2])


@CASES
def test_no_key_is_used_twice(name, monkeypatch):
    mcmc = make_mcmc(name)
    kernel = mcmc.sampler
    state = kernel.init(random.key(0), 0, None, (Y,), {})
    used = []
    transition = type(kernel)._transition

    def spy(self, rng_key, *args):
        used.append(tuple(np.asarray(random.key_data(rng_key)).tolist()))
        return transition(self, rng_key, *args)

    monkeypatch.setattr(type(kernel), "_transition", spy)
    kept = [tuple(np.asarray(random.key_data(random.key(0))).tolist())]
    for _ in range(4):
        kept.append(tuple(np.asarray(random.key_data(state.rng_key)).tolist()))
        state = kernel.sample(state, (Y,), {})
    assert len(set(used) | set(kept)) == len(used) + len(kept) == 9


# -- runs that go on ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ONE_OF_EACH_STATE, *POOLED])
def test_resumed_with_and_without_a_pickle_goes_on_where_it_stopped(name):
    whole = make_mcmc(name, num_chains=2, num_samples=20)
    whole.run(random.key(0), Y)

    half = make_mcmc(name, num_chains=2, num_samples=10)
    half.warmup(random.key(0), Y)
    half.run(half.post_warmup_state.rng_key, Y)
    first = half.get_samples(group_by_chain=True)
    half.post_warmup_state = half.last_state
    thawed = pickle.loads(pickle.dumps(half))
    assert thawed.sampler._sample_fn is None
    for resumed in (half, thawed):
        resumed.run(resumed.post_warmup_state.rng_key, Y)
    second = half.get_samples(group_by_chain=True)
    assert same(second, thawed.get_samples(group_by_chain=True)), "same program, same bits"

    # One program for both halves and another for the whole: XLA may round them differently.
    joined = jax.tree.map(lambda a, b: np.concatenate([a, b], axis=1), first, second)
    for site, draws in whole.get_samples(group_by_chain=True).items():
        np.testing.assert_allclose(joined[site], draws, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "num_chains"), [("mala", 1), *((name, 2) for name in FAMILIES)])
def test_jit_model_args_follows_the_second_data_set(name, num_chains):
    def shift_model(y):
        loc = numpyro.sample("loc", dist.Normal(0.0, 100.0))
        numpyro.sample("other", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(loc, 0.1).expand([50]).to_event(1), obs=y)

    mcmc = make_mcmc(
        name,
        model=shift_model,
        num_chains=num_chains,
        jit_model_args=True,
        num_warmup=300,
        num_samples=300,
    )
    for loc in (3.0, -40.0):
        mcmc.run(random.key(0), jnp.full(50, loc))
        assert abs(mcmc.get_samples()["loc"].mean() - loc) < 0.1


@TWO_FAMILIES
def test_initialized_once_for_several_runs(name, monkeypatch):
    mcmc = make_mcmc(name)
    mcmc.warmup(random.key(0), Y)
    calls = []
    init = type(mcmc.sampler).init
    monkeypatch.setattr(
        type(mcmc.sampler), "init", lambda self, *a, **k: calls.append(1) or init(self, *a, **k)
    )
    mcmc.run(random.key(1), Y)
    mcmc.run(random.key(2), Y)
    assert calls == []


@TWO_FAMILIES
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_no_tracer_stays_on_the_kernel(name):
    mcmc = make_mcmc(name, num_chains=2, chain_method=jax.vmap)
    mcmc.run(random.key(0), Y)
    leaves = jax.tree.leaves(vars(mcmc.sampler))
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


# -- other inputs ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "num_chains"), [("mala", 1), *((name, 2) for name in FAMILIES)])
def test_potential_fn_of_any_pytree(name, num_chains):
    def potential_fn(z):
        return 0.5 * (z[0] ** 2 + jnp.sum((z[1]["b"] - 1) ** 2))

    kernel = KERNELS[name].make(potential_fn=potential_fn)
    mcmc = MCMC(
        kernel,
        num_warmup=50,
        num_samples=20,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    lead = (num_chains,) if num_chains > 1 else ()
    start = [jnp.zeros(lead), {"b": jnp.zeros((*lead, 2, 2))}]
    mcmc.run(random.key(0), init_params=start)
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws[1]["b"].shape == (num_chains, 20, 2, 2)
    with pytest.raises(ValueError, match="pass init_params"):
        mcmc.run(random.key(0))


@CASES_BY_FAMILY
def test_block_of_gibbs_beside_discrete_and_nuts(name):
    def mixture_model(y):
        k = numpyro.sample("k", dist.Bernoulli(0.3))
        mu = numpyro.sample("mu", ScoreDistribution(lambda x: -x, (1,)))
        nu = numpyro.sample("nu", dist.Normal(0.0, 1.0))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(mu[0] + nu + 3.0 * k, 0.1 + scale), obs=y)

    kernel = Gibbs(
        [
            (DiscreteGibbs(mixture_model), discrete_latent_sites),
            (KERNELS[name].make(mixture_model), ["mu", "scale"]),
            (NUTS(mixture_model), ["nu"]),
        ]
    )
    mcmc = MCMC(kernel, num_warmup=200, num_samples=500, progress_bar=False)
    mcmc.run(random.key(0), 3.0)
    draws = mcmc.get_samples()
    assert set(draws) == {"k", "mu", "nu", "scale"}
    assert bool((draws["scale"] > 0).all())
    assert 0.3 < draws["k"].mean() < 1.0, "the data move k to 1"
    for site in ("mu", "scale", "nu"):
        assert len(np.unique(draws[site])) > 100, f"{site} must move"


def test_gibbs_blocks_condition_on_the_values_of_this_sweep():
    """Two blocks of a bivariate normal with correlation .9: wrong if a block lags behind."""
    covariance = jnp.array([[1.0, 0.9], [0.9, 1.0]])

    def pair_model():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("b", dist.Normal(0.9 * a, jnp.sqrt(1 - 0.81)))

    kernel = Gibbs([(KERNELS["mala"].make(pair_model), [site]) for site in ("a", "b")])
    mcmc = MCMC(kernel, num_warmup=1000, num_samples=30_000, progress_bar=False)
    mcmc.run(random.key(0))
    draws = jnp.stack([mcmc.get_samples(True)[s] for s in ("a", "b")], -1)
    assert_recovers(draws, Moments(np.zeros(2), np.ones(2)))
    assert abs(jnp.cov(draws[0].T)[0, 1] - covariance[0, 1]) < 0.1
