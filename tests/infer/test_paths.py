"""The local path rule: what a step computes, what it costs, and what the state keeps of it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints
from numpyro.infer.util import potential_energy

from numpyro_score.distributions import ScoreDistribution
from numpyro_score.infer import HMC, MALA, Barker, _score_sites
from numpyro_score.infer._paths import LocalPath, LocalStep
from numpyro_score.samplers._quadrature import gauss_lobatto
from tests.infer.test_cost import equations
from tests.infer.test_path_statistics import asymmetric_rule, mixed_model, run

Y = jnp.array([0.3, 1.5, -0.4])


# -- the rule --------------------------------------------------------------------------------------


def rich_model(num_nodes=64):
    """Score sites in a plate, masked, scaled, positive, conditional, and as a noise model."""
    condition = jnp.arange(6.0).reshape(3, 2) / 3
    double_well = lambda x, c: c + x - x**3  # noqa: E731
    with numpyro.plate("rows", 3), numpyro.handlers.mask(mask=jnp.array([True, False, True])):
        site = ScoreDistribution(double_well, (2,), condition=condition, num_nodes=num_nodes)
        x = numpyro.sample("x", site)
    with numpyro.handlers.scale(scale=0.5):
        tail = ScoreDistribution(
            lambda w: 2 / w - 2, (2,), support=constraints.positive, num_nodes=num_nodes
        )
        w = numpyro.sample("w", tail)
    loc = numpyro.sample("loc", dist.Normal(x.mean(), 1.0))
    noise = ScoreDistribution(lambda u: -jnp.tanh(u) - u**3, (3,), num_nodes=num_nodes)
    shift = dist.transforms.AffineTransform(loc, w.sum())
    numpyro.sample("y", dist.TransformedDistribution(noise, shift), obs=Y)


potential_fn = partial(potential_energy, rich_model, (), {})


def positions(scale=0.4):
    """Two positions near each other."""
    x, w, loc = (
        scale * random.normal(random.key(i), (2, *s)) for i, s in enumerate([(3, 2), (2,), ()])
    )
    return [{"x": x[i], "w": w[i], "loc": loc[i]} for i in range(2)]


def log_ratio(start, end, num_nodes):
    """Return the log ratio of a proposal, and the gradient that steers the next one."""

    def ratio(start, end):
        path = LocalPath(num_nodes)
        fields, _ = path.evaluate(potential_fn, start)
        step = path.leave(potential_fn, SimpleNamespace(**fields), remember=False)
        value, gradient = jax.value_and_grad(step)(end)
        return value + fields["potential_energy"], gradient

    return jax.jit(ratio)(start, end)


def test_with_many_nodes_the_local_ratio_is_the_anchored_one_and_its_derivative_the_same():
    start, end = positions()
    ratio, gradient = log_ratio(start, end, 16)
    np.testing.assert_allclose(ratio, potential_fn(start) - potential_fn(end), rtol=1e-4)
    expected = jax.jit(jax.grad(lambda z: -potential_fn(z)))(end)
    for name, value in expected.items():
        np.testing.assert_allclose(gradient[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    _, at_start = jax.jit(lambda z: LocalPath(3).evaluate(potential_fn, z))(start)
    flat = ravel_pytree(jax.jit(jax.grad(potential_fn))(start))[0]
    np.testing.assert_allclose(at_start, flat, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("num_nodes", [2, 3, 5])
def test_the_ratio_of_the_way_back_is_the_inverse(num_nodes, monkeypatch):
    start, end = positions(scale=1.0)
    there, _ = log_ratio(start, end, num_nodes)
    back, _ = log_ratio(end, start, num_nodes)
    np.testing.assert_allclose(there, -back, rtol=1e-4)
    monkeypatch.setattr(_score_sites, "gauss_lobatto", asymmetric_rule)
    there, _ = log_ratio(start, end, num_nodes)
    back, _ = log_ratio(end, start, num_nodes)
    assert abs(there + back) > 1e-2 * abs(there), "this test can fail"


@pytest.mark.parametrize("num_nodes", [2, 3, 4, 5, 8])
def test_lobatto_rules_are_symmetric_and_of_their_order(num_nodes):
    nodes, weights = gauss_lobatto(num_nodes)
    np.testing.assert_allclose(nodes, 1 - nodes[::-1], atol=1e-15)
    np.testing.assert_array_equal(weights, weights[::-1])
    degrees = np.arange(2 * num_nodes - 1)
    errors = np.abs(weights @ nodes[:, None] ** degrees - 1 / (degrees + 1))
    assert errors[:-1].max() < 1e-14
    assert errors[-1] > 1e-10


# -- cost ------------------------------------------------------------------------------------------


def evaluations_per_step(kernel, size=4):
    """Evaluations of the score −sinh(x) in one step, and derivatives of it."""
    state = kernel.init(random.key(0), 100, None, (), {})
    step = list(equations(jax.make_jaxpr(lambda state: kernel.sample(state, (), {}))(state)))
    sizes = {"sinh": 0, "cosh": 0}
    for eqn in step:
        if eqn.primitive.name in sizes:
            sizes[eqn.primitive.name] += eqn.outvars[0].aval.size / size
    return sizes


def steep_model():
    numpyro.sample("x", ScoreDistribution(lambda x: -jnp.sinh(x), (4,)))


@pytest.mark.parametrize(
    ("kernel", "path_nodes", "expected", "dense_mass"),
    [(MALA, 2, 1, False), (MALA, 3, 2, True), (MALA, 5, 4, False), (Barker, 3, 2, True)],
)
def test_a_step_evaluates_the_network_once_less_than_there_are_nodes(
    kernel, path_nodes, expected, dense_mass
):
    local = kernel(steep_model, path="local", path_nodes=path_nodes, dense_mass=dense_mass)
    assert evaluations_per_step(local) == {"sinh": expected, "cosh": 0}


def test_the_anchored_rule_costs_sixteen():
    assert evaluations_per_step(MALA(steep_model)) == {"sinh": 16, "cosh": 0}


# -- what the state keeps -------------------------------------------------------------------------


def assert_state_is_what_its_position_says(mcmc):
    """Nothing of the state is a sum over steps."""
    state, path = mcmc.last_state, LocalPath(3)
    potential_fn = mcmc.sampler._target.potential_fn((), {})
    fresh, _ = jax.jit(jax.vmap(lambda z: path.evaluate(potential_fn, z)))(state.z)
    np.testing.assert_allclose(state.potential_energy, fresh["potential_energy"], atol=1e-4)
    for name, mark in fresh["site_scores"].items():
        jax.tree.map(
            lambda old, new: np.testing.assert_allclose(old, new, rtol=1e-4, atol=1e-4),
            state.site_scores[name],
            mark,
        )


def test_nothing_is_accumulated_over_the_steps_of_a_trajectory():
    assert_state_is_what_its_position_says(run(HMC(mixed_model, num_steps=2, path="local")))


def test_nothing_is_accumulated_and_a_running_sum_is_caught(monkeypatch):
    assert_state_is_what_its_position_says(run(MALA(mixed_model, path="local")))
    settle = LocalStep.settle

    def accumulate(self, logdensity, moved, z):
        return settle(self, logdensity, moved, z) | {"potential_energy": -logdensity}

    monkeypatch.setattr(LocalStep, "settle", accumulate)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_state_is_what_its_position_says(run(MALA(mixed_model, path="local")))
