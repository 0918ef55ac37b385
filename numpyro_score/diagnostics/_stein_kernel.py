r"""The Langevin Stein kernel of the inverse multiquadric, in blocks of pairs.

.. math:: u(x, y) = s(x) \cdot s(y)\, k + s(x) \cdot \nabla_y k + s(y) \cdot \nabla_x k
          + \operatorname{tr} \nabla_x \nabla_y k, \quad k = (1 + \|x - y\|^2 / \ell^2)^{-1/2}

Rows ``x`` and ``scores`` have the shape ``(n, d)``; ``square`` is :math:`\ell^2`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array

# Three products of this size and what is made of them stay in a core's cache: blocks of 1,024 rows
# take 1.5 times as long, of 2,048 five times.
BLOCK = 256


class Points(NamedTuple):
    """Where the kernel is evaluated: x and scores ``(n, d)``, and ℓ²."""

    x: Array
    scores: Array
    square: Array


def diagonal(points: Points) -> Array:
    """Return u(x, x), shape ``(n,)``."""
    return jnp.sum(points.scores**2, 1) + points.x.shape[1] / points.square


def against(points: Points, i: Array) -> Array:
    """Return u between all points and the i-th, shape ``(n,)``."""
    return _along(points, points.x[i], points.scores[i])


@jax.jit
def pair_sums(points: Points) -> tuple[Array, Array]:
    """Return Σ_j u(x_i, x_j) over j ≠ i, shape ``(n,)``, and Σ u² over i ≠ j in parts, to be added.

    Each pair of blocks is evaluated once.
    """
    x, scores, valid = (_blocks(rows) for rows in (*points[:2], jnp.ones(len(points.x))))
    i, j = jnp.triu_indices(len(x))

    def add(sums: tuple[Array, Array], pair: tuple[Array, Array]) -> tuple[tuple, None]:
        rows, squares = sums
        i, j = pair
        u = _matrix(x[i], scores[i], x[j], scores[j], points.square)
        u = jnp.where((i == j) & jnp.eye(BLOCK, dtype=bool), 0, u)
        u = u * valid[i][:, None] * valid[j]
        apart = (i != j).astype(u.dtype)
        rows = rows.at[i].add(u.sum(1)).at[j].add(apart * u.sum(0))
        return (rows, squares.at[i].add((1 + apart) * jnp.sum(u**2))), None

    zeros = (jnp.zeros(x.shape[:2], x.dtype), jnp.zeros(len(x), x.dtype))
    (rows, squares), _ = jax.lax.scan(add, zeros, (i, j))
    return rows.ravel()[: len(points.x)], squares


@jax.jit
def quadratic_forms(points: Points, weights: Array) -> Array:
    """Return Σ_ij w_i w_j u(x_i, x_j), i = j included, for weights ``(n, m)``; shape ``(m,)``."""
    # Rows of padding have a weight of 0.
    x, scores, w = (_blocks(rows) for rows in (*points[:2], weights))
    i, j = jnp.triu_indices(len(x))

    def add(sums: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        i, j = pair
        u = _matrix(x[i], scores[i], x[j], scores[j], points.square)
        return sums + jnp.where(i == j, 1, 2) * jnp.sum(w[i] * _product(u, w[j]), 0), None

    return jax.lax.scan(add, jnp.zeros(weights.shape[1], x.dtype), (i, j))[0]


@jax.jit
def shifted_sums(points: Points, shifts: Array) -> tuple[Array, Array]:
    """Return what :func:`pair_sums` does, for pairs whose numbers differ by a shift, modulo n."""
    x, scores, _ = points

    def add(sums: tuple[Array, Array], shift: Array) -> tuple[tuple, None]:
        rows, squares = sums
        u = _along(points, jnp.roll(x, -shift, 0), jnp.roll(scores, -shift, 0))
        return (rows + u + jnp.roll(u, shift), squares + 2 * jnp.sum(u**2)), None

    zeros = (jnp.zeros(len(x), x.dtype), jnp.zeros((), x.dtype))
    return jax.lax.scan(add, zeros, shifts)[0]


def _along(points: Points, y: Array, y_scores: Array) -> Array:
    """Return u(x_i, y_i), or u(x_i, y) for one y."""
    x, scores, square = points
    apart = jnp.sum((y_scores - scores) * (y - x), 1)
    distance = jnp.sum((x - y) ** 2, 1) / square
    return _kernel(jnp.sum(scores * y_scores, 1), apart, distance, x.shape[1], square)


def _matrix(x: Array, x_scores: Array, y: Array, y_scores: Array, square: Array) -> Array:
    """Return u between all rows of x and all of y."""
    inner, scores = _product(x, y.T), _product(x_scores, y_scores.T)
    # Three products of matrices, where s(x)·y and x·s(y) apart would make four.
    crossed = _product(x + x_scores, (y + y_scores).T) - inner - scores
    along = jnp.sum(x * x_scores, 1)[:, None] + jnp.sum(y * y_scores, 1)
    squares = jnp.sum(x**2, 1)[:, None] + jnp.sum(y**2, 1)
    distance = jnp.maximum(squares - 2 * inner, 0) / square
    return _kernel(scores, along - crossed, distance, x.shape[1], square)


def _kernel(scores: Array, apart: Array, distance: Array, size: int, square: Array) -> Array:
    """Return u from s(x)·s(y), (s(y) - s(x))·(y - x) and ‖x - y‖²/ℓ²."""
    k = jax.lax.rsqrt(1 + distance)
    trace = size - 3 * distance * k**2
    return k * (scores + (apart + trace) * k**2 / square)


def _product(a: Array, b: Array) -> Array:
    # An accelerator would round single precision to ten bits, of differences between such products.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _blocks(rows: Array) -> Array:
    num_blocks = -(-len(rows) // BLOCK)
    padding = [(0, num_blocks * BLOCK - len(rows))] + [(0, 0)] * (rows.ndim - 1)
    return jnp.pad(rows, padding).reshape(num_blocks, BLOCK, *rows.shape[1:])
