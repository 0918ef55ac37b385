"""Checks and splits of training data, before any step is taken."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array


class Rows(NamedTuple):
    """Examples, with their conditions if there are any."""

    data: Array
    condition: Array | None

    def __len__(self) -> int:
        return self.data.shape[0]

    def take(self, index: Array) -> Rows:
        """Return the rows at ``index``."""
        condition = None if self.condition is None else self.condition[index]
        return Rows(self.data[index], condition)


def check_rows(data: Any, condition: Any) -> Rows:
    """Return data and condition as JAX arrays, or say what is wrong with them."""
    rows = _check_array(data, "data")
    if rows.shape[0] < 2:
        raise ValueError(f"data must have at least 2 rows, got the shape {rows.shape}.")
    if condition is None:
        return Rows(rows, None)
    conditions = _check_array(condition, "condition")
    if conditions.shape[0] != rows.shape[0]:
        raise ValueError(
            f"condition must have one row per row of data: data has {rows.shape[0]} rows, "
            f"condition {conditions.shape[0]}."
        )
    return Rows(rows, conditions)


def split_rows(
    rng_key: Array, rows: Rows, validation_fraction: float, batch_size: int
) -> tuple[Rows, Rows | None]:
    """Split rows at random into training and validation rows.

    More validation rows than a batch are cut down to whole batches; the rest is trained on.
    """
    num_validation = round(validation_fraction * len(rows))
    if num_validation > batch_size:
        num_validation -= num_validation % batch_size
    num_training = len(rows) - num_validation
    if validation_fraction > 0 and num_validation == 0:
        raise ValueError(
            f"validation_fraction={validation_fraction} of {len(rows)} rows is no row at all; "
            "bring more rows, a larger validation_fraction, or give validation_fraction=0."
        )
    if batch_size > num_training:
        raise ValueError(
            f"batch_size must be at most the number of training rows: {len(rows)} rows less "
            f"{num_validation} for validation leave {num_training}, got "
            f"batch_size={batch_size}."
        )
    if num_validation == 0:
        return rows, None
    order = jax.random.permutation(rng_key, len(rows))
    return rows.take(order[num_validation:]), rows.take(order[:num_validation])


def _check_array(x: Any, name: str) -> Array:
    if not isinstance(x, (np.ndarray, jax.Array)):
        raise TypeError(
            f"{name} must be a NumPy or JAX array, got {type(x).__name__}; convert it with "
            f"numpy.asarray({name}, dtype=float)."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name} must hold floating-point numbers, got dtype {x.dtype}; convert it with "
            f"{name}.astype(float). Counts and classes have no score; add noise to grey levels."
        )
    if x.ndim < 2:
        raise ValueError(
            f"{name} must have the shape (n, *event_shape) with at least one event axis, got "
            f"{x.shape}; write numbers as events with {name}.reshape(-1, 1)."
        )
    if 0 in x.shape:
        raise ValueError(f"{name} must not be empty, got the shape {x.shape}.")
    _check_finite(x, name)
    with np.errstate(over="ignore"):
        array = jnp.asarray(x)
    _check_finite(array, f"{name} as {array.dtype}")
    return array


def _check_finite(x: Any, name: str) -> None:
    bad = ~np.isfinite(np.asarray(x))
    if not bad.any():
        return
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    row_axes = tuple(range(1, bad.ndim))
    raise ValueError(
        f"{name} must be finite, but {int(bad.sum())} of {bad.size} entries in "
        f"{int(bad.any(axis=row_axes).sum())} of {len(bad)} rows are NaN or infinite, the first "
        f"in row {first[0]}, column {first[1] if len(first) == 2 else first[1:]}; drop those "
        "rows or fill in the entries."
    )
