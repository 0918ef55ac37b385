"""Two sets of draws as rows of numbers, checked; and the standard error of a mean over them."""

from __future__ import annotations

import numpy as np

from numpyro_score._checks import check_float
from numpyro_score._typing import Array


def two_samples(draws: Array, reference: Array, minimum: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both sets as matrices, a draw in each row.

    :param draws: shape ``(n, *event_shape)``.
    :param reference: shape ``(m, *event_shape)``.
    :param minimum: the fewest draws of a set that the caller can work with.
    :raises TypeError: integers, or complex numbers.
    :raises ValueError: events of different shapes, too few draws, or draws that are all the same.
    :raises FloatingPointError: a draw is not finite.
    """
    rows = {"draws": draws, "reference": reference}
    for name, values in rows.items():
        check_float(values, name)
        if np.ndim(values) == 0 or len(values) < minimum:
            raise ValueError(
                f"{name} must have the shape (n, *event_shape) with n of at least {minimum}, got "
                f"{np.shape(values)}."
            )
    if np.shape(draws)[1:] != np.shape(reference)[1:]:
        raise ValueError(
            f"draws and reference must be of the same events: those of draws have the shape "
            f"{np.shape(draws)[1:]}, those of reference {np.shape(reference)[1:]}. An axis of "
            "chains must be merged with that of draws."
        )
    matrices = []
    for name, values in rows.items():
        # Half precision is no precision for sums over draws.
        dtype = np.promote_types(np.asarray(values).dtype, np.float32)
        matrix = np.asarray(values, dtype).reshape(len(values), -1)
        matrices.append(matrix)
        bad = np.flatnonzero(~np.isfinite(matrix).all(1))
        if bad.size:
            raise FloatingPointError(
                f"{bad.size} of the {len(matrix)} {name} are not finite, the first is number "
                f"{bad[0]}; leave out such draws, and say so."
            )
        if (matrix == matrix[0]).all():
            raise ValueError(
                f"all {len(matrix)} {name} are one and the same: look for a chain that did not "
                "move."
            )
    return matrices[0], matrices[1]


def error_of_mean(values: np.ndarray) -> float:
    """Return the standard error of the mean of values in the order in which they were drawn.

    By the means of about √n batches of neighbours, so that draws of a chain, which are not
    independent, may be given. Source: J. M. Flegal & G. L. Jones, Annals of Statistics 38 (2010).
    """
    num_batches = int(np.sqrt(len(values)))
    size = len(values) // num_batches
    means = values[: num_batches * size].reshape(num_batches, size).mean(1)
    return float(means.std(ddof=1) / np.sqrt(num_batches))
