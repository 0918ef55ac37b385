"""The log density of a score: quadrature, derivatives, and what they cost."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from jax.extend.core import ClosedJaxpr, Jaxpr

from numpyro_score.distributions import ScoreDistribution
from numpyro_score.distributions._line_integral import anchored_line_integral, gauss_radau

DOUBLE = jnp.result_type(float) == jnp.float64
RTOL = 1e-10 if DOUBLE else 2e-5
MEANS = jnp.array([[-1.0, 0.5], [1.5, -0.5]])
ANCHOR = jnp.array([0.2, -0.3])
X = jnp.array([1.1, 0.7])


def mixture_log_density(means, x):
    """Two normals of unit variance."""
    return jax.nn.logsumexp(-0.5 * jnp.sum((x - means) ** 2, axis=-1))


mixture_score = jax.grad(mixture_log_density, argnums=1)


def phi(means, x, anchor=ANCHOR, num_nodes=16):
    return anchored_line_integral(mixture_score, num_nodes, means, x, anchor)


# -- quadrature --------------------------------------------------------------------------------


@pytest.mark.parametrize("num_nodes", [2, 3, 5, 8, 16, 32, 64])
def test_radau_is_exact_to_the_degree_it_claims_and_not_beyond(num_nodes):
    nodes, weights = gauss_radau(num_nodes)
    assert nodes.shape == weights.shape == (num_nodes,)
    assert nodes[-1] == 1.0
    assert (np.diff(nodes) > 0).all()
    assert nodes[0] > 0
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-12)
    degrees = np.arange(2 * num_nodes - 1)
    integrals = [weights @ nodes**k for k in degrees]
    np.testing.assert_allclose(integrals, 1 / (degrees + 1), rtol=1e-11)
    if num_nodes <= 5:  # beyond that the next degree is off by less than rounding
        k = 2 * num_nodes - 1
        assert abs(weights @ nodes**k - 1 / (k + 1)) > 1e-7


def test_error_falls_fast_with_the_number_of_nodes():
    means = 2 * MEANS  # apart enough that few nodes are not enough
    exact = mixture_log_density(means, X) - mixture_log_density(means, ANCHOR)
    errors = [abs(float(phi(means, X, num_nodes=n) - exact)) for n in (2, 4, 8, 16)]
    assert errors[0] > 1e-2
    assert errors[1] < errors[0] / 5
    assert errors[2] < errors[1] / 5
    assert errors[3] < (1e-8 if DOUBLE else 3e-6)


def test_zero_at_the_anchor():
    assert phi(MEANS, ANCHOR) == 0.0
    np.testing.assert_allclose(jax.grad(phi, 1)(MEANS, ANCHOR), mixture_score(MEANS, ANCHOR))


# -- derivatives -------------------------------------------------------------------------------


@pytest.mark.parametrize("num_nodes", [2, 16])
@pytest.mark.parametrize("derivative", [jax.grad, jax.jacrev, jax.jacfwd])
def test_derivative_is_the_score_itself(derivative, num_nodes):
    """Even with two nodes, where the integral is far off: declared, not differentiated."""
    f = lambda x: phi(MEANS, x, num_nodes=num_nodes)  # noqa: E731
    expected = mixture_score(MEANS, X)
    np.testing.assert_allclose(derivative(f)(X), expected, rtol=RTOL)
    np.testing.assert_allclose(jax.jit(derivative(f))(X), expected, rtol=RTOL)
    xs = jnp.stack([X, -X, ANCHOR])
    expected = jax.vmap(lambda x: mixture_score(MEANS, x))(xs)
    np.testing.assert_allclose(jax.vmap(derivative(f))(xs), expected, rtol=RTOL)


def test_derivative_of_the_sum_itself_would_be_something_else():
    """The negative control of the test above."""
    undeclared = jax.grad(lambda x: anchored_line_integral.fun(mixture_score, 2, MEANS, x, ANCHOR))
    assert jnp.abs(undeclared(X) - mixture_score(MEANS, X)).max() > 1e-3


@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev])
def test_second_derivative_is_the_jacobian_of_the_score(outer, inner):
    turn = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    field = lambda args, x: mixture_score(MEANS, x) + turn @ x  # noqa: E731
    f = lambda x: anchored_line_integral(field, 4, None, x, ANCHOR)  # noqa: E731
    jacobian = jax.jacfwd(lambda x: field(None, x))(X)
    assert jnp.abs(jacobian - jacobian.T).max() > 1, "a field with curl"
    np.testing.assert_allclose(outer(inner(f))(X), jacobian, rtol=10 * RTOL)


def test_derivative_along_a_direction_with_a_batch_of_tangents():
    tangents = random.normal(random.key(0), (3, 2))
    out = jax.vmap(lambda t: jax.jvp(lambda x: phi(MEANS, x), (X,), (t,))[1])(tangents)
    np.testing.assert_allclose(out, tangents @ mixture_score(MEANS, X), rtol=10 * RTOL)


def finite_difference(f, x):
    """Central differences, of an error of order eps²."""
    eps = 1e-4 if DOUBLE else 2e-2
    moves = eps * jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    up, down = jax.vmap(f)(x + moves), jax.vmap(f)(x - moves)
    return (up - down).reshape(x.shape) / (2 * eps)


@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd])
def test_derivatives_in_the_weights_and_the_anchor_are_those_of_the_sum(derivative):
    tolerance = {"rtol": 1e-6} if DOUBLE else {"rtol": 2e-2, "atol": 2e-3}
    for f, at in [(lambda m: phi(m, X), MEANS), (lambda a: phi(MEANS, X, a), ANCHOR)]:
        slope = jax.jit(derivative(f))(at)
        assert jnp.abs(slope).min() > 0.03
        np.testing.assert_allclose(slope, finite_difference(jax.jit(f), at), **tolerance)


def test_all_arguments_at_once():
    grads = jax.grad(phi, argnums=(0, 1, 2))(MEANS, X, ANCHOR)
    for i, grad in enumerate(grads):
        np.testing.assert_allclose(grad, jax.grad(phi, argnums=i)(MEANS, X, ANCHOR), rtol=10 * RTOL)


def test_mixed_derivative_is_that_of_the_score_in_the_weights():
    out = jax.jacfwd(jax.grad(phi, argnums=1))(MEANS, X)
    expected = jax.jacfwd(lambda m: mixture_score(m, X))(MEANS)
    np.testing.assert_allclose(out, expected, rtol=10 * RTOL, atol=RTOL)


def test_leaves_that_are_no_floats_or_missing():
    def score(args, x):
        weights, condition = args
        assert condition is None
        return -weights["w"] * weights["n"] * x

    def f(w, n, x):
        return anchored_line_integral(score, 4, ({"w": w, "n": n}, None), x, jnp.zeros(2))

    w, n = jnp.array(1.5), jnp.array(2)
    half_square = 0.5 * float(X @ X)
    np.testing.assert_allclose(f(w, n, X), -3.0 * half_square, rtol=RTOL)
    for grad in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(grad(f)(w, n, X), -2.0 * half_square, rtol=RTOL)
        np.testing.assert_allclose(grad(f, argnums=2)(w, n, X), -3.0 * X, rtol=RTOL)


# -- cost --------------------------------------------------------------------------------------


def evaluations(fn, *args, event_size=2):
    """How many events reach the ``sinh`` of the score, in all batches together."""

    def sizes(jaxpr):
        jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "sinh":
                yield eqn.outvars[0].aval.size
            for value in eqn.params.values():
                if isinstance(value, (ClosedJaxpr, Jaxpr)):
                    yield from sizes(value)

    # What nobody reads is no cost: XLA removes it, and so does this.
    jaxpr = jax.make_jaxpr(jax.jit(fn))(*args)
    return sum(sizes(jaxpr)) // event_size


@pytest.mark.parametrize("num_nodes", [2, 7, 16])
def test_value_and_gradient_cost_one_evaluation_a_node(num_nodes):
    d = ScoreDistribution(lambda x: -jnp.sinh(x), (2,), num_nodes=num_nodes)
    assert evaluations(d.log_prob, X) == num_nodes
    assert evaluations(jax.value_and_grad(d.log_prob), X) == num_nodes
    assert evaluations(jax.vmap(jax.value_and_grad(d.log_prob)), jnp.ones((5, 2))) == 5 * num_nodes
    assert evaluations(d.score, X) == 1
