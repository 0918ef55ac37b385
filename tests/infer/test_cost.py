"""What a step costs: one gradient, two products, no factorization."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import random
from jax.extend.core import ClosedJaxpr, Jaxpr

from numpyro_score.infer import _whitening
from numpyro_score.infer._step_loop import take_steps
from tests.cases import KERNELS
from tests.infer.model import CASES, Y, model


def equations(jaxpr, skip=()):
    """Every primitive of a jaxpr, inner ones included, but for those inside ``skip``."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    for eqn in jaxpr.eqns:
        yield eqn
        if eqn.primitive.name in skip:
            continue
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: isinstance(v, (ClosedJaxpr, Jaxpr))
        ):
            if isinstance(value, (ClosedJaxpr, Jaxpr)):
                yield from equations(value, skip)


def count(jaxpr, primitive, skip=()):
    return sum(eqn.primitive.name == primitive for eqn in equations(jaxpr, skip))


def count_products(jaxpr, skip=()):
    """Products with a matrix; those of two vectors do not count."""
    products = [e for e in equations(jaxpr, skip) if e.primitive.name == "dot_general"]
    return sum(any(v.aval.ndim > 1 for v in eqn.invars) for eqn in products)


def traced_step(name, size=4, num_warmup=100, **options):
    """Jaxpr of one step on a potential whose gradient is one ``cosh``, its value one ``sinh``."""
    kernel = KERNELS[name].make(potential_fn=lambda z: jnp.sinh(z).sum(), **options)
    # Only its shapes are asked for: what a kernel tunes at once need not be compiled.
    state = jax.eval_shape(
        lambda key: kernel.init(key, num_warmup, jnp.zeros(size), (), {}), random.key(0)
    )
    return jax.make_jaxpr(lambda state: kernel.sample(state, (), {}))(state)


@CASES
def test_one_gradient_per_step_of_the_integrator(name):
    step, num_gradients = traced_step(name), KERNELS[name].gradients
    values, gradients = count(step, "sinh"), count(step, "cosh")
    assert (values, gradients) == (num_gradients, num_gradients)


@pytest.mark.parametrize("name", [k for k, case in KERNELS.items() if case.products])
def test_two_products_per_gradient_and_no_factorization_outside_warmup(name):
    step = traced_step(name, _whitening._SMALL + 1, 1000, dense_mass=True)
    products = count_products(step, skip=("cond",))
    assert products == KERNELS[name].products
    factorizations = ("cholesky", "svd", "qr", "geqrf", "eigh", "triangular_solve")
    assert all(count(step, f, skip=("cond",)) == 0 for f in factorizations)
    assert count(step, "svd") == 1, "in the branch that ends a window"
    assert count_products(traced_step(name, dense_mass=False)) == 0


@CASES
def test_the_counter_has_no_axis_so_that_branches_stay_branches(name):
    kernel = KERNELS[name].make(model)
    state = kernel.init(random.split(random.key(0), 3), 100, None, (Y,), {})
    assert state.i.shape == ()
    jaxpr = jax.make_jaxpr(lambda state: kernel.sample(state, (Y,), {}))(state)
    num_branches = count(jaxpr, "cond")
    assert num_branches >= 1


@pytest.mark.parametrize("name", ["mala", "ghmc", "hmc"])
def test_after_warmup_no_step_asks_whether_it_is_over(name):
    kernel = KERNELS[name].make(potential_fn=lambda z: jnp.sinh(z).sum())
    state = kernel.init(random.key(0), 100, jnp.zeros(4), (), {})

    def chunk(state, num_steps):
        keep = lambda i, state, rows: rows  # noqa: E731
        return take_steps(kernel, ((), {}), num_steps, keep, (state, ()))

    loops = [e for e in equations(jax.make_jaxpr(chunk)(state, 7)) if e.primitive.name == "while"]
    outer, inner = (loop.params["body_jaxpr"] for loop in loops[:2])
    assert count(inner, "cosh") == KERNELS[name].gradients
    tests = count(traced_step(name, num_warmup=0), "cond")  # Metropolis
    assert count(inner, "cond") == tests < count(outer, "cond")
