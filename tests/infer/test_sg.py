"""Contracts of the kernels that see a fresh minibatch at every step."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random

from tests.infer.minibatch_model import (
    CASES,
    KERNELS,
    Y,
    make_mcmc,
    model,
)
from tests.infer.test_contracts import same
from tests.infer.test_cost import count

FIELDS = ("potential_energy", "noise_ratio", "gradient_variance", "adapt_state.step_size")


@pytest.mark.parametrize(
    ("name", "chain_method", "num_chains", "control"),
    [
        ("sgld", "sequential", 1, None),
        ("sgld", "vectorized", 3, "map"),
        ("sgld", jax.vmap, 2, {"loc": np.full(2, 2.0), "scale": 1.5}),
        ("sghmc", "vectorized", 2, None),
        ("sgnht", "vectorized", 2, "map"),
        ("sgnht", "sequential", 2, None),
    ],
)
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")  # NumPyro's, under vmap
def test_every_chain_method_with_and_without_starts(name, chain_method, num_chains, control):
    lead = (num_chains,) if num_chains > 1 else ()
    start = {"loc": jnp.full((*lead, 2), 2.0), "scale": jnp.zeros(lead)}
    mcmc = make_mcmc(
        name,
        num_chains=num_chains,
        chain_method=chain_method,
        kernel={"control_variate": control},
    )
    mcmc.run(random.key(0), Y, extra_fields=FIELDS, init_params=start if control else None)
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws["loc"].shape == (num_chains, 20, 2)
    np.testing.assert_allclose(draws["total"], draws["loc"].sum(-1), rtol=1e-5, atol=1e-5)
    assert (draws["scale"] > 0).all()
    extra = mcmc.get_extra_fields(group_by_chain=True)
    assert set(extra) == {*FIELDS, "diverging"}
    assert extra["gradient_variance"].shape == (num_chains, 20, 3)
    assert not extra["diverging"].any()
    np.testing.assert_allclose(
        extra["adapt_state.step_size"], KERNELS[name].options["step_size"], rtol=1e-6
    )
    if num_chains > 1:
        assert not np.array_equal(draws["loc"][0], draws["loc"][1])


@CASES
def test_given_start_is_where_the_chain_starts(name):
    start = {"loc": jnp.array([[3.0, 1.0], [2.0, 0.0]]), "scale": jnp.array([0.1, 0.2])}
    kernel = KERNELS[name].make(model)
    state = kernel.init(random.split(random.key(0)), 0, start, (Y,), {})
    assert same(state.z, start)
    assert not np.array_equal(state.score[0], state.score[1])


def test_keys_of_both_kinds_give_the_same_draws_and_thinning_keeps_every_second():
    every, thinned = (make_mcmc("sgld", num_chains=2, thinning=t) for t in (1, 2))
    every.run(random.key(3), Y)
    thinned.run(random.PRNGKey(3), Y)
    draws = jax.tree.map(lambda x: x[:, 1::2], every.get_samples(group_by_chain=True))
    assert same(draws, thinned.get_samples(group_by_chain=True))


@CASES
def test_no_key_is_used_twice(name, monkeypatch):
    kernel = KERNELS[name].make(model)
    state = kernel.init(random.key(0), 100, None, (Y,), {})
    traced = []
    move = type(kernel)._move

    def spy(self, rng_key, *args):
        traced.append(rng_key)
        return move(self, rng_key, *args)

    monkeypatch.setattr(type(kernel), "_move", spy)

    @jax.jit
    def step(state):
        new = kernel.sample(state, (Y,), {})
        return new, random.key_data(traced.pop())

    used, kept = [], []
    for _ in range(3):
        kept.append(tuple(np.asarray(random.key_data(state.rng_key)).tolist()))
        state, key = step(state)
        used.append(tuple(np.asarray(key).tolist()))
    assert len(set(used) | set(kept)) == 6


@CASES
def test_resumed_with_and_without_a_pickle_goes_on_where_it_stopped(name):
    half = make_mcmc(name, num_chains=2, num_samples=10)
    half.run(random.key(0), Y)
    half.post_warmup_state = half.last_state
    thawed = pickle.loads(pickle.dumps(half))
    assert thawed.sampler._sample_fn is None
    for resumed in (half, thawed):
        resumed.run(resumed.post_warmup_state.rng_key, Y)
    assert same(half.get_samples(), thawed.get_samples())
    assert int(half.last_state.i) == 50


@pytest.mark.parametrize(("name", "control"), [("sgld", "map"), ("sgnht", None)])
def test_jit_model_args_follows_the_second_data_set(name, control):
    def shifted(y):
        loc = numpyro.sample("loc", dist.Normal(0.0, 100.0))
        with numpyro.plate("rows", len(y), subsample_size=10) as rows:
            numpyro.sample("y", dist.Normal(loc, 7.0), obs=y[rows])

    mcmc = make_mcmc(
        name,
        model=shifted,
        num_chains=2,
        jit_model_args=True,
        num_warmup=600,
        num_samples=200,
        kernel={"control_variate": control},
    )
    for loc in (3.0, -20.0):
        mcmc.run(random.key(0), jnp.full(50, loc))
        assert abs(mcmc.get_samples()["loc"].mean() - loc) < 1.5
    leaves = jax.tree.leaves(vars(mcmc.sampler))
    assert not any(isinstance(leaf, jax.Array) for leaf in leaves), "no array stays on the kernel"


@CASES
def test_refresh_tells_the_state_of_other_data(name):
    kernel = KERNELS[name].make(model, control_variate={"loc": np.full(2, 2.0), "scale": 1.5})
    state = kernel.init(random.split(random.key(0)), 10, None, (Y,), {})
    other = kernel.refresh(state, (Y + 100,), {})
    fresh = kernel.init(random.split(random.key(0)), 10, None, (Y + 100,), {})
    assert same(other.z, state.z)
    np.testing.assert_array_equal(other.control.centre, state.control.centre)
    np.testing.assert_allclose(
        other.control.estimate.score, fresh.control.estimate.score, rtol=1e-5
    )
    assert (other.potential_energy > state.potential_energy + 100).all()


# -- steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "control", "gradients"),
    [("sgld", None, 1), ("sgld", "map", 2), ("sgnht", None, 1), ("sghmc", None, 1)],
)
def test_one_gradient_per_step_and_two_with_control_variates(name, control, gradients):
    """Counted by a ``cosh``, the derivative of a ``sinh``; SGHMC has one in its loop."""

    def counted():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 10, subsample_size=3):
            numpyro.factor("f", -0.01 * jnp.sinh(x) ** 2)

    kernel = KERNELS[name].make(counted, control_variate=control)
    state = kernel.init(random.key(0), 100, None, (), {})
    step = jax.make_jaxpr(lambda state: kernel.sample(state, (), {}))(state)
    assert count(step, "cosh", skip=("cond",)) == gradients
    assert count(step, "cosh") == 2 * gradients, "now and then, a second minibatch"


@CASES
def test_the_counter_has_no_axis_so_that_the_second_minibatch_stays_rare(name):
    centre = {"loc": np.full(2, 2.0), "scale": 1.5}
    kernel = KERNELS[name].make(model, control_variate=centre)
    state = kernel.init(random.split(random.key(0), 3), 100, None, (Y,), {})
    assert state.i.shape == ()
    assert state.control.centre.shape == (3,), "one centre for all chains"
    jaxpr = jax.make_jaxpr(lambda state: kernel.sample(state, (Y,), {}))(state)
    assert count(jaxpr, "cond") == 1


@CASES
def test_chain_stays_where_something_is_not_finite_and_says_so(name):
    def edge():
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
        with numpyro.plate("rows", 4, subsample_size=2):
            numpyro.factor("f", jnp.where(x > 1.0, jnp.nan, -0.1 * x**2))

    mcmc = make_mcmc(name, model=edge, num_samples=200, num_chains=2)
    start = {"x": jnp.full(2, 0.99)}
    mcmc.run(random.key(0), init_params=start, extra_fields=("noise_ratio", "potential_energy"))
    x, extra = mcmc.get_samples()["x"], mcmc.get_extra_fields()
    assert (x <= 1.0).all()
    assert 0 < extra["diverging"].sum() < 200
    assert len(np.unique(x)) > 100, "it moves on"
    assert np.isfinite(extra["noise_ratio"]).all()
    assert np.isfinite(extra["potential_energy"]).all()


def test_schedule_of_the_step_counter():
    schedule = lambda i: 0.05 / (1.0 + i)  # noqa: E731
    mcmc = make_mcmc("sgld", kernel={"step_size": schedule})
    mcmc.run(random.key(0), Y, extra_fields=("adapt_state.step_size",))
    used = mcmc.get_extra_fields()["adapt_state.step_size"]
    np.testing.assert_allclose(used, schedule(np.arange(30, 50)), rtol=1e-5)


@CASES
def test_kernel_says_that_it_is_biased_and_reports_no_acceptance(name):
    kernel = KERNELS[name].make(model)
    state = kernel.init(random.key(0), 0, None, (Y,), {})
    assert "biased" in repr(kernel)
    assert "biased" in kernel.get_diagnostics_str(state)
    assert "noise ratio" in kernel.get_diagnostics_str(state)
    assert not [field for field in state._fields if "accept" in field]
