"""Where the minibatches of a fit come from: arrays on the device, files, or an iterator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._array_file import digest_arrays
from numpyro_score._typing import Array
from numpyro_score.training._data import Rows

_SAMPLE_ROWS, _SAMPLE_BYTES = 50_000, 2**26
_DIGEST_ROWS = 65_536


class Source(ABC):
    """Minibatches, each known by the number of the step that takes it.

    - **batch_size** - rows of each.
    - **rows** - all rows, where they are on the device and the compiled step draws from them.
    - **sample** - rows on the device that tell what the data are like.
    """

    batch_size: int
    rows: Rows | None = None
    sample: Rows

    @abstractmethod
    def batches(self, step: int, num_steps: int) -> Rows | None:
        """Return the batches of steps from ``step`` on, stacked on the host; None if on the device.

        There may be fewer than ``num_steps``: then there are no more.
        """

    def resume(self, step: int) -> None:  # noqa: B027
        """Say that no batch before ``step`` will be asked for."""

    @abstractmethod
    def digest(self) -> str:
        """Return a hash by which a checkpoint knows its data."""


class DeviceRows(Source):
    """Rows that are on the device as a whole."""

    def __init__(self, rows: Rows, batch_size: int) -> None:
        self.rows = self.sample = rows
        self.batch_size = batch_size

    def batches(self, step: int, num_steps: int) -> None:
        """Return None: the compiled step draws its own."""
        return

    def digest(self) -> str:
        """Return a hash of all rows."""
        return digest_arrays(self.rows)


class FileRows(Source):
    """Rows of memory-mapped files, of which each chunk of steps reads those that it takes.

    :param rows: memory maps, or arrays on the host.
    :param index: numbers of the rows to train on; None for all.
    :param rng_key: that of the fit, so that its batches are those that it would draw in memory.
    """

    def __init__(
        self, rows: Rows, index: np.ndarray | None, batch_size: int, rng_key: Array
    ) -> None:
        self._files = rows
        self._index = index
        self._rng_key = rng_key
        self._num_rows = len(rows) if index is None else len(index)
        self.batch_size = batch_size
        num_sample = min(self._num_rows, enough_rows(row_bytes(rows)))
        # Rows that lie together in a file may be alike: take them from all over it.
        spread = np.linspace(0, self._num_rows - 1, num_sample).round().astype(int)
        self.sample = on_device(self._read(spread))

    def batches(self, step: int, num_steps: int) -> Rows:
        """Return the batches of steps from ``step`` on."""
        steps = jnp.arange(step, step + num_steps)
        index = _draw_many(self._rng_key, steps, self.batch_size, self._num_rows)
        return self._read(np.asarray(index))

    def digest(self) -> str:
        """Return a hash of the files, read block by block, and of the rows to train on."""
        blocks = [
            digest_arrays([x[first : first + _DIGEST_ROWS] for x in jax.tree.leaves(self._files)])
            for first in range(0, len(self._files), _DIGEST_ROWS)
        ]
        index = () if self._index is None else self._index
        return digest_arrays((index, np.frombuffer("".join(blocks).encode(), np.uint8)))

    def _read(self, index: np.ndarray) -> Rows:
        numbers = index if self._index is None else self._index[index]
        return read_rows(self._files, numbers)


class Feed:
    """Batches of a source as the compiled steps take them: on the device, in chunks of one length.

    :param chunk_size: that length.
    """

    def __init__(self, source: Source, chunk_size: int) -> None:
        self.source = source
        self.chunk_size = chunk_size
        self._step = -1
        self._found: Rows | None = None

    def num_available(self, step: int, num_steps: int) -> int:
        """Return how many of the steps from ``step`` on there is a batch for."""
        found = self._get(step, num_steps)
        return num_steps if found is None else len(found)

    def chunk(self, step: int, num_steps: int) -> Rows | None:
        """Return the batches of these steps, or None where they draw their own."""
        found = self._get(step, num_steps)
        return None if found is None else jax.tree.map(self._fill, found)

    def _get(self, step: int, num_steps: int) -> Rows | None:
        # The same steps are asked for again where one of them failed.
        if self.source.rows is None and step != self._step:
            self._found, self._step = self.source.batches(step, num_steps), step
        return self._found

    def _fill(self, x: np.ndarray) -> Array:
        missing = self.chunk_size - len(x)
        return jnp.asarray(np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)))


def read_rows(files: Rows, numbers: np.ndarray) -> Rows:
    """Return the rows of files at ``numbers``, of any shape, in the type of JAX."""
    # In the order of the file, which a disk likes better.
    order, place = np.unique(numbers, return_inverse=True)
    place = place.reshape(numbers.shape)
    return jax.tree.map(lambda x: as_float(x[order])[place], files)


def enough_rows(num_bytes: int) -> int:
    """Return how many rows of ``num_bytes`` tell what the data are like."""
    return min(_SAMPLE_ROWS, max(1, _SAMPLE_BYTES // num_bytes))


def row_bytes(rows: Rows) -> int:
    """Return the size of one row."""
    return sum(x.nbytes // len(x) for x in jax.tree.leaves(rows))


def on_device(rows: Rows) -> Rows:
    """Return rows as JAX arrays."""
    return jax.tree.map(jnp.asarray, rows)


def draw_index(key: Array, batch_size: int, num_rows: int) -> Array:
    """Return the row numbers of a step's batch."""
    # With replacement: a draw without one, or a permutation per epoch, sorts all rows.
    return jax.random.randint(key, (batch_size,), 0, num_rows)


def step_keys(rng_key: Array, step: Array) -> Array:
    """Return the keys of a step: for its batch, and for its loss."""
    return jax.random.split(jax.random.fold_in(rng_key, step))


@partial(jax.jit, static_argnums=(2, 3))
def _draw_many(rng_key: Array, steps: Array, batch_size: int, num_rows: int) -> Array:
    return jax.vmap(lambda step: draw_index(step_keys(rng_key, step)[0], batch_size, num_rows))(
        steps
    )


def as_float(x: np.ndarray) -> np.ndarray:
    """Return numbers in the type that JAX would give them; those of half precision stay so."""
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    return np.asarray(x).astype(dtype, copy=False)
