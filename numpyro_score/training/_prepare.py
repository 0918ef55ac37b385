"""From the data of a user to minibatches and validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from numpyro_score._typing import Array
from numpyro_score.training._batch_iterator import BatchIterator, is_batches
from numpyro_score.training._data import (
    Rows,
    check_files,
    check_rows,
    check_validation_rows,
    split_index,
)
from numpyro_score.training._sources import DeviceRows, FileRows, Source, on_device, read_rows

_BATCH_SIZE = 256
_MOST_VALIDATION_ROWS = 10_000


def prepare(
    data: Any,
    condition: Any,
    batch_size: int | None,
    validation_fraction: float,
    validation_data: Any,
    split_key: Array,
    batch_key: Array,
    columns: Sequence[str] | None,
    num_steps: int,
) -> tuple[Source, Rows | None]:
    """Return where minibatches come from, and the validation rows.

    :param split_key: for the choice of validation rows.
    :param batch_key: for the rows of each batch.
    :param columns: names of the columns of the data, for messages.
    :param num_steps: number of steps, and so of batches.
    """
    source: Source
    validation = None
    if is_batches(data):
        if condition is not None:
            raise ValueError(
                "an iterator brings its own conditions: let it give pairs (data, condition), and "
                "leave condition out."
            )
        given = jax.tree.leaves(validation_data)
        num_held_out = max((len(x) for x in given if np.ndim(x)), default=0)
        source = BatchIterator(data, batch_size, columns, num_steps, num_held_out)
    elif isinstance(data, np.memmap):
        check_files(data, condition, columns)
        files = Rows(data, None if condition is None else np.asarray(condition))
        size = batch_size or _usual_size(len(files), validation_fraction)
        training, held_out = split_index(
            split_key, len(files), validation_fraction, size, most=_MOST_VALIDATION_ROWS
        )
        index = None if training is None else np.asarray(training)
        source = FileRows(files, index, size, batch_key)
        if held_out is not None:
            validation = on_device(read_rows(files, np.asarray(held_out)))
    else:
        rows = check_rows(data, condition, columns)
        size = batch_size or _usual_size(len(rows), validation_fraction)
        training, held_out = split_index(split_key, len(rows), validation_fraction, size)
        source = DeviceRows(rows if training is None else rows.take(training), size)
        if held_out is not None:
            validation = rows.take(held_out)
    if validation_data is not None:
        validation = check_validation_rows(validation_data, source.sample)
    return source, validation


def _usual_size(num_rows: int, validation_fraction: float) -> int:
    """Return the rows of a batch: all those of training, where they are few."""
    return max(1, min(_BATCH_SIZE, num_rows - round(validation_fraction * num_rows)))
