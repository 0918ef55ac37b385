"""LAPACK's calls follow one another.

JAX on a CPU splits a batch among its threads, each call waiting in one of them until its parts are
done: two calls at once on two cores wait for ever. A dense warm-up of 64 chains in 100 dimensions
stood still that way, in two of three runs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Literal

from numpyro_score.infer._low_rank import finish_window, init_window
from numpyro_score.infer._metric import finish_metric, init_metric, restart_metric
from numpyro_score.infer._whitening import LowRankWhitening

LAPACK = {"cholesky", "svd", "qr", "geqrf", "householder_product", "eigh", "triangular_solve", "lu"}
SIZE = 4


def calls(jaxpr, needs):
    """Yield for each call of LAPACK its name, and the calls before it that it depends on.

    :param needs: the calls that the inputs depend on; returned for the outputs.
    """
    known = dict(zip(jaxpr.invars, needs, strict=True))

    def of(variable):
        return set() if isinstance(variable, Literal) else known.get(variable, set())

    for equation in jaxpr.eqns:
        inputs = [of(v) for v in equation.invars]
        inner = [p.jaxpr for p in equation.params.values() if hasattr(p, "jaxpr")]
        if equation.primitive.name in LAPACK:
            call = object()
            yield call, set().union(*inputs), equation.primitive.name
            outputs = [set().union({call}, *inputs)] * len(equation.outvars)
        elif inner and len(inner[0].invars) == len(inputs):
            outputs = yield from calls(inner[0], inputs)
        else:
            assert not inner, f"{equation.primitive.name} is not looked into"
            outputs = [set().union(*inputs)] * len(equation.outvars)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [of(v) for v in jaxpr.outvars]


def names_in_turn(function, *args):
    """Names of the calls of LAPACK, each of which has to wait for all those before it."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    before, names = set(), []
    for call, needs, name in calls(jaxpr, [set() for _ in jaxpr.invars]):
        assert before <= needs, f"{name} does not wait for one of {names}"
        before.add(call)
        names.append(name)
    return names


def end_of_dense_window(state):
    factor = finish_metric(state, dense=True)
    return factor, restart_metric(state, factor)


def test_a_dense_metric_makes_one_call_after_the_other():
    names = names_in_turn(end_of_dense_window, init_metric(jnp.zeros((2, SIZE)), dense=True))
    assert names.count("cholesky") == 1
    assert "svd" in names


def test_a_metric_of_low_rank_does_too():
    whitening = LowRankWhitening(jnp.ones(SIZE), jnp.eye(2, SIZE), jnp.ones(2))
    window, scores = init_window(jnp.zeros((2, SIZE)), 2), jnp.zeros((2, SIZE))
    names = names_in_turn(finish_window, window, whitening, scores, jnp.int32(1))
    assert names.count("cholesky") == 1


def test_two_calls_at_once_would_be_noticed():
    def at_once(a):
        return jnp.linalg.cholesky(a) @ jnp.linalg.cholesky(2 * a)

    with pytest.raises(AssertionError, match="does not wait"):
        names_in_turn(at_once, jnp.eye(SIZE))
