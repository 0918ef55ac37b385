"""The log density of a field known only by its score.

φ(x) = ∫₀¹ s(a + t (x - a)) · (x - a) dt is, up to a constant, the log density of which s is the
score, wherever s is a gradient. Its derivative is declared to be s itself: one evaluation, and
Metropolis-Hastings stays exact for exp(φ) where s is not a gradient, because a proposal may use
any drift as long as both directions use the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array, PyTree
from numpyro_score.distributions._tangents import changes, materialize


@lru_cache
def gauss_radau(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1] whose last node is 1, exact to degree ``2 num_nodes - 2``.

    The node at the end of the segment is the score that the gradient needs anyway.
    Abramowitz & Stegun (1964), 25.4.31, mirrored.
    """
    legendre = np.polynomial.legendre
    sum_of_two = np.zeros(num_nodes + 1)
    sum_of_two[num_nodes - 1 :] = 1.0
    quotient, _ = legendre.legdiv(sum_of_two, [1.0, 1.0])
    inner = np.sort(legendre.legroots(quotient).real)
    left = np.concatenate([[-1.0], inner])
    last = np.zeros(num_nodes)
    last[-1] = 1.0
    weights = (1 - left) / (num_nodes * legendre.legval(left, last)) ** 2
    return (1 - left[::-1]) / 2, weights[::-1] / 2


def _integrate(
    score: Callable[..., Array], num_nodes: int, args: PyTree, x: Array, anchor: Array
) -> tuple[Array, Array]:
    """Return φ(x) and s(x), from ``num_nodes`` evaluations in one batch."""
    nodes, weights = gauss_radau(num_nodes)
    direction = x - anchor
    t = jnp.asarray(nodes, x.dtype).reshape((-1,) + (1,) * x.ndim)
    # The last node is the point itself; rounding must not move it.
    points = jnp.concatenate([anchor + t[:-1] * direction, x[None]])
    scores = jax.vmap(lambda y: score(args, y))(points)
    projections = jnp.sum(scores * direction, axis=tuple(range(1, scores.ndim)))
    return jnp.sum(projections * jnp.asarray(weights, x.dtype)), scores[-1]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def anchored_line_integral(
    score: Callable[..., Array], num_nodes: int, args: PyTree, x: Array, anchor: Array
) -> Array:
    """φ(x) for one event; its derivative in ``x`` is the score, in the rest that of the sum.

    :param score: ``score(args, x)``, free of traced values but for its arguments.
    :param num_nodes: evaluations of the score.
    :param args: arrays that the score depends on (weights, a condition).
    :param x: one event.
    :param anchor: the point where φ is 0, of the shape of ``x``.
    """
    return _integrate(score, num_nodes, args, x, anchor)[0]


@partial(anchored_line_integral.defjvp, symbolic_zeros=True)
def _anchored_line_integral_jvp(
    score: Callable[..., Array], num_nodes: int, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    args, x, anchor = primals
    args_dot, x_dot, anchor_dot = tangents
    value, score_x = _integrate(score, num_nodes, args, x, anchor)
    out_dot = jnp.zeros_like(value)
    if changes(x_dot):
        out_dot = out_dot + jnp.sum(score_x * x_dot)
    rest, rest_dot = (args, anchor), (args_dot, anchor_dot)
    if changes(rest_dot):
        _, dot = jax.jvp(
            lambda args, anchor: _integrate(score, num_nodes, args, x, anchor)[0],
            rest,
            materialize(rest, rest_dot),
        )
        out_dot = out_dot + dot
    return value, out_dot
