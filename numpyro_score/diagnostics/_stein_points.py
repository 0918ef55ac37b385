"""Draws and scores in the coordinates in which the Stein kernel is evaluated."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array
from numpyro_score.diagnostics._field import read_scores
from numpyro_score.diagnostics._lengthscale import median_distance
from numpyro_score.diagnostics._stein_kernel import Points

Preconditioner: TypeAlias = Literal["diagonal", "dense"] | Array | None
# Covariances of fewer draws than this per dimension have directions that are mostly chance.
_DRAWS_PER_DIMENSION = 2


class SteinPoints(NamedTuple):
    """Points of the kernel; the kernel times ``unit`` is the kernel in the user's coordinates."""

    points: Points
    unit: float
    lengthscale: float
    num_chains: int


def stein_points(
    score: Any,
    draws: Array,
    event_dim: int | None,
    lengthscale: float | None,
    preconditioner: Preconditioner,
    minimum: int = 2,
) -> SteinPoints:
    """Return z = L⁻¹ x and its score Lᵀ s for M = L Lᵀ, centred."""
    rows, scores = read_scores(score, draws, event_dim, minimum=minimum)
    dtype = rows.x.dtype
    x, s = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (rows.x, scores))
    # Distances come from inner products, which lose digits far from the origin.
    x = x - x.mean(0)
    if preconditioner is not None:
        root = _root(x, preconditioner)
        if root.ndim == 1:
            x, s = x / root, s * root
        else:
            x, s = np.linalg.solve(root, x.T).T, s @ root
    if lengthscale is None:
        lengthscale = median_distance(x)
    check_positive(lengthscale, "lengthscale")
    # Inner products of x and of s that are of one size, so that their sums lose few digits.
    size, score_size = np.mean(x**2), np.mean(s**2)
    unit = 2.0 ** np.round(np.log2(score_size / size) / 2) if score_size > 0 else 1.0
    points = Points(
        jnp.asarray(x * unit**0.5, dtype),
        jnp.asarray(s / unit**0.5, dtype),
        jnp.asarray(unit * lengthscale**2, dtype),
    )
    return SteinPoints(points, float(unit), float(lengthscale), rows.num_chains)


def _root(x: np.ndarray, preconditioner: Preconditioner) -> np.ndarray:
    """Return L: a matrix, or a diagonal as a vector."""
    n, size = x.shape
    if isinstance(preconditioner, str) and preconditioner == "diagonal":
        sd = x.std(0, ddof=1)
        if not (sd > 0).all():
            raise ValueError(
                f"coordinate {sd.argmin()} of the draws is constant, so that the draws give no "
                "preconditioner: leave it out, or give a matrix."
            )
        return sd
    if isinstance(preconditioner, str) and preconditioner == "dense":
        if n < _DRAWS_PER_DIMENSION * size:
            raise ValueError(
                f'preconditioner="dense" needs {_DRAWS_PER_DIMENSION} draws per dimension, '
                f"{_DRAWS_PER_DIMENSION * size} here, got {n}: use 'diagonal', or give a matrix."
            )
        return _cholesky(np.atleast_2d(np.cov(x.T)), "the covariance of the draws")
    if isinstance(preconditioner, str):
        raise ValueError(
            f"preconditioner must be None, 'diagonal', 'dense' or a matrix, got {preconditioner!r}."
        )
    matrix = np.asarray(preconditioner, np.float64)
    if matrix.shape != (size, size) or not np.allclose(matrix, matrix.T, rtol=1e-4):
        raise ValueError(
            f"preconditioner must be a symmetric matrix of shape {(size, size)}, got the shape "
            f"{matrix.shape}."
        )
    return _cholesky(matrix, "preconditioner")


def _cholesky(matrix: np.ndarray, name: str) -> np.ndarray:
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{name} is not positive definite: the draws may lie in a subspace."
        ) from None
