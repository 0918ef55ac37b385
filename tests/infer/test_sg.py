"""Contracts of the kernels that see a fresh minibatch at every step."""

from __future__ import annotations

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import infer as theirs

from numpyro_score import infer
from numpyro_score.diagnostics import from_numpyro
from numpyro_score.infer._minibatch import Estimate, MinibatchTarget
from numpyro_score.infer.stochastic import Move
from tests.infer.minibatch_model import BATCH, CASES, KERNELS, Y, make_mcmc, model
from tests.infer.test_contracts import same
from tests.infer.test_cost import count

FIELDS = ("potential_energy", "noise_ratio", "gradient_variance", "adapt_state.step_size")
CENTRE = {"loc": np.full(2, 2.0), "scale": 1.5}
START = {"loc": jnp.array([[3.0, 1.0], [2.0, 0.0]]), "scale": jnp.array([0.1, 0.2])}
# One option each, so that every one is run under both MCMCs.
RUNS = {
    "sgld": {"control_variate": CENTRE},
    "sghmc": {"step_size": lambda i: 0.05 / (1.0 + 0.1 * i)},
    "sgnht": {},
}


@functools.cache
def finished(name):
    """Two vectorized chains under our MCMC."""
    mcmc = make_mcmc(name, num_chains=2, kernel=RUNS[name])
    mcmc.run(random.key(0), Y, extra_fields=FIELDS, init_params=START)
    return mcmc


def initialized(name):
    """A kernel that can take steps, and the last state of :func:`finished`."""
    kernel = KERNELS[name].make(model, **RUNS[name])
    jax.eval_shape(lambda: kernel.init(random.split(random.key(0)), 30, None, (Y,), {}))
    return kernel, finished(name).last_state


def one_chain(state):
    shared = {"i": state.i, "control": state.control}
    return jax.tree.map(lambda x: x[0], state._replace(i=None, control=None))._replace(**shared)


def assert_same_draws(one, other):
    for get in ("get_samples", "get_extra_fields"):
        mine, their = (getattr(m, get)(group_by_chain=True) for m in (one, other))
        assert set(mine) == set(their)
        for name in mine:
            np.testing.assert_allclose(mine[name], their[name], rtol=1e-3, atol=1e-3, err_msg=name)


# -- runs --------------------------------------------------------------------------------------


@CASES
def test_draws_are_those_of_numpyros_mcmc_and_have_their_shapes(name):
    ours = finished(name)
    numpyros = make_mcmc(name, cls=theirs.MCMC, num_chains=2, kernel=RUNS[name])
    numpyros.run(random.key(0), Y, extra_fields=FIELDS, init_params=START)
    assert_same_draws(ours, numpyros)

    draws, extra = (f(group_by_chain=True) for f in (ours.get_samples, ours.get_extra_fields))
    assert draws["loc"].shape == (2, 20, 2)
    np.testing.assert_allclose(draws["total"], draws["loc"].sum(-1), rtol=1e-5, atol=1e-5)
    assert (draws["scale"] > 0).all()
    assert set(extra) == {*FIELDS, "diverging"}
    assert extra["gradient_variance"].shape == (2, 20, 3)
    assert not extra["diverging"].any()
    step_size = (KERNELS[name].options | RUNS[name])["step_size"]
    if callable(step_size):
        step_size = step_size(np.arange(30, 50))
    np.testing.assert_allclose(extra["adapt_state.step_size"][0], step_size, rtol=1e-5)
    assert not np.array_equal(draws["loc"][0], draws["loc"][1])
    energies = extra["potential_energy"][0]
    assert len(np.unique(energies)) == len(energies), "another minibatch at every step"


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")  # NumPyro's, under vmap
def test_a_callable_chain_method_gives_the_same_draws():
    mapped = make_mcmc(
        "sgld", cls=theirs.MCMC, num_chains=2, chain_method=jax.vmap, kernel=RUNS["sgld"]
    )
    mapped.run(random.key(0), Y, extra_fields=FIELDS, init_params=START)
    assert_same_draws(finished("sgld"), mapped)
    leaves = jax.tree.leaves(vars(mapped.sampler))
    assert not any(isinstance(leaf, jax.Array) for leaf in leaves), "no array stays on the kernel"


def test_resumed_with_and_without_a_pickle_goes_on_where_it_stopped():
    """The thermostat: it remembers most."""
    mcmc = finished("sgnht")
    thawed = pickle.loads(pickle.dumps(mcmc))
    assert thawed.sampler._sample_fn is None
    for resumed in (mcmc, thawed):
        resumed.post_warmup_state = resumed.last_state
        resumed.run(resumed.post_warmup_state.rng_key, Y)
        assert int(resumed.last_state.i) == 70
    assert same(mcmc.get_samples(), thawed.get_samples())


def test_arviz_reads_a_run():
    data = from_numpyro(finished("sgld"))
    assert data["posterior"]["loc"].shape == (2, 20, 2)
    assert data["sample_stats"]["diverging"].shape == (2, 20)
    np.testing.assert_array_equal(data["observed_data"]["y"], Y[:BATCH])
    assert data["posterior"].attrs["biased"] == "no Metropolis test"
    assert data["posterior"].attrs["noise_ratio"].shape == (2,)


# -- other data --------------------------------------------------------------------------------


def shifted(traces):
    def model(y):
        traces.append(1)
        loc = numpyro.sample("loc", dist.Normal(0.0, 100.0))
        with numpyro.plate("rows", len(y), subsample_size=10) as rows:
            numpyro.sample("y", dist.Normal(loc, 7.0), obs=y[rows])

    return model


def follow_the_data(traces):
    """Two runs, and a third that goes on from the second, each with data of its own."""
    mcmc = make_mcmc(
        "sgld",
        model=shifted(traces),
        num_chains=2,
        num_warmup=300,
        num_samples=400,
        kernel={"step_size": 0.1, "control_variate": "map"},
    )
    noise = jnp.linspace(-1.0, 1.0, 50)
    for loc in (3.0, -20.0, 8.0):
        mcmc.run(random.key(0), loc + noise)
        assert abs(mcmc.get_samples()["loc"][-400:].mean() - loc) < 1.5, f"not at {loc}"
        assert abs(mcmc.last_state.control.centre[0] - (-20.0 if loc == 8.0 else loc)) < 0.1
        traces.append("a run")
        if loc == -20.0:
            mcmc.post_warmup_state = mcmc.last_state


def test_a_second_run_traces_nothing_and_follows_its_own_data():
    """So the data are no constants of the program, and control variates those of the data."""
    traces = []
    follow_the_data(traces)
    assert traces[traces.index("a run") :] == ["a run"] * 3


def test_catches_control_variates_of_the_data_before(monkeypatch):
    monkeypatch.setattr(MinibatchTarget, "renewed", lambda self, unravel, control, look: control)
    with pytest.raises(AssertionError, match=r"not at 8\.0"):
        follow_the_data([])


def test_refresh_tells_the_state_of_other_data():
    kernel = KERNELS["sgld"].make(model, **RUNS["sgld"])
    state = kernel.init(random.split(random.key(0)), 100, START, (Y,), {})
    assert same(state.z, START)
    assert not np.array_equal(state.score[0], state.score[1])
    refresh = jax.jit(lambda state, y: kernel.refresh(state, (y,), {}))
    other = refresh(state, Y + 100)
    assert same(other.z, START)
    np.testing.assert_array_equal(other.control.centre, state.control.centre)
    assert (other.potential_energy > state.potential_energy + 100).all()
    back, was = (s.control.estimate.score for s in (refresh(other, Y), state))
    assert not np.allclose(other.control.estimate.score, was)
    np.testing.assert_allclose(back, was, rtol=1e-5)


# -- steps -------------------------------------------------------------------------------------


def test_the_counter_has_no_axis_so_that_what_is_rare_stays_rare():
    kernel, state = initialized("sgld")
    assert state.i.shape == ()
    assert state.control.centre.shape == (3,), "one centre for all chains"
    jaxpr = jax.make_jaxpr(lambda state: kernel.sample(state, (Y,), {}))(state)
    assert count(jaxpr, "cond") == 2, "the second minibatch, and a look at the first rows"


def test_no_key_is_used_twice(monkeypatch):
    kernel, state = initialized("sgld")
    state = one_chain(state)
    traced = []

    def spy(self, rng_key, z, state, *args):
        traced.append(rng_key)
        estimate = Estimate(-state.potential_energy, state.score)
        return Move(z, estimate, self._initial_carry(rng_key, z))

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
    state = jax.eval_shape(lambda: kernel.init(random.key(0), 100, None, (), {}))
    step = jax.make_jaxpr(lambda state: kernel.sample(state, (), {}))(state)
    assert count(step, "cosh", skip=("cond", "while")) == gradients
    now_and_then = gradients + (control is not None)
    assert count(step, "cosh", skip=("while",)) == gradients + now_and_then


@pytest.mark.parametrize("name", ["sgld", "sgnht"])
def test_chain_stays_where_something_is_not_finite_and_says_so(name):
    def edge():
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
        with numpyro.plate("rows", 4, subsample_size=2):
            numpyro.factor("f", jnp.where(x > 1.0, jnp.nan, -0.1 * x**2))

    mcmc = make_mcmc(name, model=edge, cls=theirs.MCMC, num_samples=400)
    start = {"x": jnp.array(0.99)}
    mcmc.run(random.key(0), init_params=start, extra_fields=("noise_ratio", "potential_energy"))
    x, extra = mcmc.get_samples()["x"], mcmc.get_extra_fields()
    assert (x <= 1.0).all()
    assert 0 < extra["diverging"].sum() < 200
    assert len(np.unique(x)) > 100, "it moves on"
    assert np.isfinite(extra["noise_ratio"]).all()
    assert np.isfinite(extra["potential_energy"]).all()


@CASES
def test_kernel_says_that_it_is_biased_and_reports_no_acceptance(name):
    kernel, state = initialized(name)
    assert "biased" in repr(kernel)
    assert "biased" in kernel.get_diagnostics_str(one_chain(state))
    assert "noise ratio" in kernel.get_diagnostics_str(one_chain(state))
    assert not [field for field in state._fields if "accept" in field]
    info = infer.available_kernels()[name]
    assert info.kernel is type(kernel)
    assert "minibatches" in info.needs
    assert "biased" in info.description
