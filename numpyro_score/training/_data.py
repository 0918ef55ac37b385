"""Checks and splits of training data, before any step is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array

_BLOCK_BYTES = 2**24


class Rows(NamedTuple):
    """Examples, with their conditions if there are any."""

    data: Any
    condition: Any

    def __len__(self) -> int:
        return self.data.shape[0]

    def take(self, index: Array) -> Rows:
        """Return the rows at ``index``."""
        condition = None if self.condition is None else self.condition[index]
        return Rows(self.data[index], condition)


def check_rows(data: Any, condition: Any, columns: Sequence[str] | None = None) -> Rows:
    """Return data and condition as JAX arrays, or say what is wrong with them."""
    check_files(data, condition, columns)
    return Rows(jnp.asarray(data), None if condition is None else jnp.asarray(condition))


def check_validation_rows(given: Any, like: Rows) -> Rows:
    """Return the user's validation rows, an array or a pair with its conditions."""
    data, condition = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    try:
        rows = check_rows(data, condition)
    except (TypeError, ValueError) as error:
        raise type(error)(f"validation_data: {error}") from None
    shapes, expected = ([x.shape[1:] for x in jax.tree.leaves(r)] for r in (rows, like))
    if shapes != expected:
        raise ValueError(
            f"validation_data must have rows like those of data, of the shapes {expected} (a pair "
            f"of data and conditions where there are conditions), got {shapes}."
        )
    return rows


def check_files(data: Any, condition: Any, columns: Sequence[str] | None) -> None:
    """Refuse rows with which nothing can be learned; reads them block by block, and keeps none.

    :param columns: names of the columns of the data, if they have any.
    """
    check_array(data, "data", columns)
    if data.shape[0] < 2:
        raise ValueError(f"data must have at least 2 rows, got the shape {data.shape}.")
    if condition is None:
        return
    check_array(condition, "condition", is_condition=True)
    if condition.shape[0] != data.shape[0]:
        raise ValueError(
            f"condition must have one row per row of data: data has {data.shape[0]} rows, "
            f"condition {condition.shape[0]}."
        )


def split_index(
    rng_key: Array,
    num_rows: int,
    validation_fraction: float,
    batch_size: int,
    most: int | None = None,
) -> tuple[Array | None, Array | None]:
    """Split row numbers at random into those of training and of validation.

    More validation rows than a batch are cut down to whole batches; the rest is trained on.

    :param most: the most validation rows.
    :return: both, or None and None where nothing is held out.
    """
    num_validation = round(validation_fraction * num_rows)
    if most is not None:
        num_validation = min(num_validation, max(most, batch_size))
    if num_validation > batch_size:
        num_validation -= num_validation % batch_size
    num_training = num_rows - num_validation
    if validation_fraction > 0 and num_validation == 0:
        raise ValueError(
            f"validation_fraction={validation_fraction} of {num_rows} rows is no row at all; "
            "bring more rows, a larger validation_fraction, or give validation_fraction=0."
        )
    if batch_size > num_training:
        raise ValueError(
            f"batch_size must be at most the number of training rows: {num_rows} rows less "
            f"{num_validation} for validation leave {num_training}, got "
            f"batch_size={batch_size}."
        )
    if num_validation == 0:
        return None, None
    order = jax.random.permutation(rng_key, num_rows)
    return order[num_validation:], order[:num_validation]


def check_array(
    x: Any, name: str, columns: Sequence[str] | None = None, *, is_condition: bool = False
) -> None:
    """Refuse what is no array of finite numbers with an event axis."""
    if not isinstance(x, (np.ndarray, jax.Array)):
        raise TypeError(
            f"{name} must be a NumPy or JAX array, got {type(x).__name__}; convert it with "
            f"numpy.asarray({name}, dtype=float)."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        of_data = " Counts and classes have no score; add noise to grey levels."
        raise TypeError(
            f"{name} must hold floating-point numbers, got dtype {x.dtype}; convert it with "
            f"{name}.astype(float).{'' if is_condition else of_data}"
        )
    if x.ndim < 2:
        raise ValueError(
            f"{name} must have the shape (n, *event_shape) with at least one event axis, got "
            f"{x.shape}; write numbers as events with {name}.reshape(-1, 1)."
        )
    if 0 in x.shape:
        raise ValueError(f"{name} must not be empty, got the shape {x.shape}.")
    # Block by block, so that a file is not read into memory.
    host = x if isinstance(x, np.memmap) else np.asarray(x)
    length = max(1, _BLOCK_BYTES // (host.nbytes // len(host)))
    for first in range(0, len(host), length):
        _check_finite(host[first : first + length], name, first, len(host), columns)


def _check_finite(
    block: np.ndarray, name: str, first: int, num_rows: int, columns: Sequence[str] | None
) -> None:
    bad = ~np.isfinite(block)
    if not bad.any():
        dtype = np.dtype(jnp.result_type(float))
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(block.astype(dtype, copy=False))
        name = f"{name} as {dtype}"
    if not bad.any():
        return
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    row_axes = tuple(range(1, bad.ndim))
    rest = "" if len(block) == num_rows else f" from row {first} on"
    column = str(where[1] if len(where) == 2 else where[1:])
    if columns is not None and len(where) == 2 and where[1] < len(columns):
        column = repr(columns[where[1]])
    raise ValueError(
        f"{name} must be finite, but {int(bad.sum())} of {bad.size} entries in "
        f"{int(bad.any(axis=row_axes).sum())} of {len(bad)} rows{rest} are NaN or infinite, the "
        f"first in row {first + where[0]}, column {column}; drop those rows or fill in the "
        "entries."
    )
