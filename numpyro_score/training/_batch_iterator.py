"""Batches that a user's iterator gives: from a database, a data loader, or made as they go."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from numpyro_score._array_file import digest_arrays
from numpyro_score._typing import Shape
from numpyro_score.training._data import Rows, check_array
from numpyro_score.training._sources import Source, as_float, enough_rows, on_device, row_bytes

#: Rows that tell mean and covariance: of few entries to 2 %, of many their eigenvalues to half.
_SEEN_ROWS, _SEEN_ROWS_PER_ENTRY = 4_096, 20


class BatchIterator(Source):
    """Batches as an iterator gives them, one for each step.

    :param batches: arrays, or pairs of an array and its conditions, all of the same shapes. What
        can be iterated over again starts anew at its end; an iterator ends the fit there.
    :param columns: names of the columns, for messages.
    :param num_steps: the most batches that will be taken.
    :param num_held_out: rows of validation, with which as many of training will be compared.
    :raises ValueError: at once where there is no batch, or a bad one.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        batch_size: int | None,
        columns: Sequence[str] | None,
        num_steps: int,
        num_held_out: int,
    ) -> None:
        self._columns = columns
        self._again = None if isinstance(batches, Iterator) else batches
        self._iterator = iter(batches)
        self._kept: dict[int, Rows] = {}
        self._shapes: list[Shape] = []
        self._num_read = 0
        # A chunk may be taken again, and the one before it.
        self._chunks: deque[int] = deque([0], maxlen=2)
        first = self._get(0)
        if first is None:
            raise ValueError("data must not be empty: the iterator gave no batch at all.")
        self.batch_size = len(first)
        if batch_size is not None and batch_size != self.batch_size:
            raise ValueError(
                f"batch_size is {batch_size}, but the first batch has {self.batch_size} rows; the "
                "iterator decides, so leave batch_size out."
            )
        enough = -(-_num_seen(first, num_held_out) // self.batch_size)
        seen = (self._get(i) for i in range(min(enough, num_steps)))
        found = [batch for batch in seen if batch is not None]
        self.sample = on_device(jax.tree.map(lambda *x: np.concatenate(x), *found))

    def batches(self, step: int, num_steps: int) -> Rows | None:
        """Return the batches of steps from ``step`` on."""
        if step > self._chunks[-1]:
            self._chunks.append(step)
        found = [self._get(i) for i in range(step, step + num_steps)]
        for i in [i for i in self._kept if i < self._chunks[0]]:
            del self._kept[i]
        there = [batch for batch in found if batch is not None]
        if not there:
            return jax.tree.map(lambda x: np.zeros((0, *x.shape), x.dtype), self.sample)
        return jax.tree.map(lambda *x: np.stack(x), *there)

    def resume(self, step: int) -> None:
        """Read over the batches before ``step``: the user's iterator starts at its first."""
        self._chunks = deque([step], maxlen=2)

    def digest(self) -> str:
        """Return a hash of the shapes: another order of the same batches is no other fit."""
        return digest_arrays([np.array(shape) for shape in self._shapes])

    def _get(self, i: int) -> Rows | None:
        """Return batch ``i``, or None where the iterator ended before."""
        while self._num_read <= i:
            batch = self._next()
            if batch is None:
                return None
            rows = self._check(batch)
            if self._num_read >= self._chunks[0]:
                self._kept[self._num_read] = rows
            self._num_read += 1
        return self._kept[i]

    def _next(self) -> Any:
        batch = next(self._iterator, None)
        if batch is None and self._again is not None:
            self._iterator = iter(self._again)
            batch = next(self._iterator, None)
        return batch

    def _check(self, batch: Any) -> Rows:
        name = f"batch {self._num_read} of data"
        parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        if len(parts) not in (1, 2):
            raise ValueError(
                f"{name} must be an array, or a pair of an array and its conditions; got "
                f"{len(parts)} parts."
            )
        # Copies: the iterator may fill the same array again.
        arrays = [np.array(part) for part in parts]
        check_array(arrays[0], name, self._columns)
        for array in arrays[1:]:
            check_array(array, f"the condition in {name}", is_condition=True)
        rows = Rows(*map(as_float, arrays), *[None] * (2 - len(arrays)))
        self._compare(rows, name)
        return rows

    def _compare(self, rows: Rows, name: str) -> None:
        shapes = [x.shape for x in jax.tree.leaves(rows)]
        if len(shapes) == 2 and shapes[1][0] != shapes[0][0]:
            raise ValueError(
                f"{name} has {shapes[0][0]} rows, and its condition {shapes[1][0]}; a condition "
                "has one row per row of data."
            )
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            raise ValueError(
                "all batches must have the same shapes, since one compiled step takes them: "
                f"batch 0 has {self._shapes}, {name} {shapes}. Leave out a shorter last batch "
                "(drop_last=True)."
            )


def _num_seen(batch: Rows, num_held_out: int) -> int:
    """Return how many rows to see before the first step: each may be slow to make."""
    wanted = max(_SEEN_ROWS, _SEEN_ROWS_PER_ENTRY * batch.data[0].size, num_held_out)
    return min(wanted, enough_rows(row_bytes(batch)))


def is_batches(data: Any) -> bool:
    """Whether ``data`` gives batches, and is no array or collection of numbers itself."""
    if hasattr(data, "__array__") or isinstance(data, (list, tuple, dict, set, str, bytes)):
        return False
    return isinstance(data, Iterable)
