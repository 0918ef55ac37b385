"""Draws of posteriors and the truths that they are about, checked."""

from __future__ import annotations

import numpy as np

from numpyro_score._checks import check_float
from numpyro_score._typing import Array


def draws_and_truth(
    draws: Array, truth: Array, axis: int, num_axes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return draws, with their axis in front of those of an event, and truths.

    :param draws: the shape of ``truth`` with an axis of draws at ``axis``.
    :param num_axes: the fewest axes that ``truth`` may have.
    :raises TypeError: integers, or complex numbers.
    :raises ValueError: shapes that do not fit, or draws that are all one.
    :raises FloatingPointError: a draw or a truth is not finite.
    """
    check_float(draws, "draws")
    check_float(truth, "truth")
    if axis not in (0, 1):
        raise ValueError(f"axis must be 0 or 1, got {axis!r}.")
    shape, of_truth = np.shape(draws), np.shape(truth)
    if len(shape) <= axis or shape[:axis] + shape[axis + 1 :] != of_truth:
        raise ValueError(
            f"without its axis {axis}, that of draws, the shape of draws must be the shape of "
            f"truth, {of_truth}; got draws of the shape {shape}. Draws of one posterior take "
            "axis=0; draws of many, (replications, draws, ...), take axis=1."
        )
    if len(of_truth) < num_axes:
        raise ValueError(f"truth must have at least {num_axes} axes, got {of_truth}.")
    points, true = np.asarray(draws), np.asarray(truth)
    for values, name in ((points, "draws"), (true, "truth")):
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"{np.sum(~np.isfinite(values))} numbers of {name} are not finite: leave out "
                "such replications, and say so."
            )
    still = np.all(points == np.take(points, [0], axis), axis)
    if still.any():
        raise ValueError(
            f"all draws are one and the same for {np.sum(still)} of {still.size} truths: look for "
            "chains that did not move."
        )
    return points, true
