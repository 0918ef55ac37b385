"""The scale of a kernel between draws."""

from __future__ import annotations

import numpy as np

_ROWS = 1_000


def some_rows(rows: np.ndarray, at_most: int) -> np.ndarray:
    """Return rows spread evenly over all of them, so that each chain has its share."""
    return rows[:: -(-len(rows) // at_most)]


def median_distance(x: np.ndarray) -> float:
    """Return the median distance of two rows, of at most 1,000 of them.

    :raises ValueError: it is 0.
    """
    x = some_rows(x, _ROWS).astype(np.float64)
    x -= x.mean(0)
    square = np.sum(x**2, 1)
    sums = square[:, None] + square
    squares = sums - 2 * x @ x.T
    # Of two rows that are one and the same, rounding is left.
    squares = np.where(squares < 1e-12 * sums, 0.0, squares)
    median = np.sqrt(np.median(squares[np.triu_indices(len(x), 1)]))
    if median == 0:
        raise ValueError(
            "half of the draws are one and the same, so that their median distance is 0: give a "
            "lengthscale, or look at a chain that did not move."
        )
    return float(median)
