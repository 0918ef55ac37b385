"""The kernel Stein discrepancy between draws and a density known by its score."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_float, check_positive
from numpyro_score._typing import Array

_BLOCK_BYTES = 2**25
_MEDIAN_ROWS = 1_000


def kernel_stein_discrepancy(
    score: Callable[[Array], Array] | Array, draws: Array, *, lengthscale: float | None = None
) -> Array:
    r"""Distance between draws and the density that has this score; no normalizer is needed.

    The square root of the mean over all pairs of draws, each with itself included, of

    .. math:: u(x, y) = s(x) \cdot s(y)\, k + s(x) \cdot \nabla_y k + s(y) \cdot \nabla_x k
              + \operatorname{tr} \nabla_x \nabla_y k

    with the inverse multiquadric :math:`k = (1 + \|x - y\|^2 / \ell^2)^{-1/2}`, for which a
    discrepancy that tends to 0 means convergence. For n draws of the density itself it falls as
    :math:`n^{-1/2}`; compare it with that of draws that are known to be good. It sees little of
    how draws are shared out among modes that lie apart.

    Sources: Q. Liu, J. Lee, M. Jordan, A kernelized Stein discrepancy for goodness-of-fit tests,
    ICML (2016); J. Gorham & L. Mackey, Measuring sample quality with kernels, ICML (2017), for the
    kernel.

    :param score: ∇ log p of one event, or its values at the draws, of their shape.
    :param draws: shape ``(n, *event_shape)``.
    :param lengthscale: ℓ, in units of the draws; by default the median distance of two draws (of
        at most 1,000 of them).
    :return: a number of at least 0.
    :raises ValueError: fewer than two draws, or scores of another shape.
    :raises FloatingPointError: a draw or score is not finite.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.diagnostics import kernel_stein_discrepancy
    >>> draws = jax.random.normal(jax.random.key(0), (1000, 2))
    >>> good = kernel_stein_discrepancy(lambda x: -x, draws)
    >>> bad = kernel_stein_discrepancy(lambda x: -x / 2, draws)
    >>> bool(good < 0.1 < bad)
    True
    """
    check_float(draws, "draws")
    if jnp.ndim(draws) < 2 or len(draws) < 2:
        raise ValueError(
            "draws must have the shape (n, *event_shape) with n of at least 2, got "
            f"{jnp.shape(draws)}."
        )
    scores = jax.vmap(score)(draws) if callable(score) else jnp.asarray(score)
    if scores.shape != jnp.shape(draws):
        raise ValueError(
            f"score must give an array of the shape of a draw, {jnp.shape(draws)[1:]}; got "
            f"{scores.shape[1:]}."
        )
    x, scores = (jnp.asarray(rows).reshape(len(draws), -1) for rows in (draws, scores))
    for rows, name in ((x, "draw"), (scores, "score")):
        if not jnp.isfinite(rows).all():
            raise FloatingPointError(f"a {name} is not finite; leave out such draws, and say so.")
    if lengthscale is None:
        lengthscale = _median_distance(np.asarray(x))
    check_positive(lengthscale, "lengthscale")
    # Distances come from inner products, which lose digits far from the origin.
    return _discrepancy(x - x.mean(0), scores, jnp.asarray(lengthscale, x.dtype))


def _median_distance(x: np.ndarray) -> float:
    x = x[:: max(1, len(x) // _MEDIAN_ROWS)][:_MEDIAN_ROWS].astype(np.float64)
    square = np.sum(x**2, 1)
    squares = square[:, None] + square - 2 * x @ x.T
    median = np.sqrt(np.median(np.maximum(squares[np.triu_indices(len(x), 1)], 0)))
    if median == 0:
        raise ValueError(
            "half of the draws are one and the same, so that their median distance is 0: give a "
            "lengthscale, or look at a chain that did not move."
        )
    return float(median)


@jax.jit
def _discrepancy(x: Array, scores: Array, lengthscale: Array) -> Array:
    n, size = x.shape
    rows = max(1, min(n, _BLOCK_BYTES // (n * x.dtype.itemsize)))
    num_blocks = -(-n // rows)
    padding = ((0, num_blocks * rows - n), (0, 0))
    weights = jnp.pad(jnp.ones(n, x.dtype), padding[0])
    blocks = (
        jnp.pad(x, padding).reshape(num_blocks, rows, size),
        jnp.pad(scores, padding).reshape(num_blocks, rows, size),
        weights.reshape(num_blocks, rows),
    )
    square, along = jnp.sum(x**2, 1), jnp.sum(x * scores, 1)

    def block_mean(block: tuple[Array, Array, Array]) -> Array:
        y, y_scores, weights = block
        distance = jnp.maximum(jnp.sum(y**2, 1)[:, None] + square - 2 * y @ x.T, 0)
        distance /= lengthscale**2
        # (s(y) - s(x)) · (y - x)
        apart = jnp.sum(y * y_scores, 1)[:, None] + along - y_scores @ x.T - y @ scores.T
        k = jax.lax.rsqrt(1 + distance)
        trace = size - 3 * distance * k**2
        values = (y_scores @ scores.T) * k + (apart + trace) * k**3 / lengthscale**2
        return weights @ jnp.mean(values, 1)

    total = jnp.sum(jax.lax.map(block_mean, blocks))
    return jnp.sqrt(jnp.maximum(total / n, 0))
