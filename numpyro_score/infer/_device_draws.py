"""Where draws go that are made on an accelerator, and stay there.

A way to the host and back takes about as long as the steps of many chains do: 55 of 127 µs for a
step of 512 chains of a logistic regression, on one GPU.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._draws import Position, wrap_keys

_ROWS_FOR_THE_BAR = 32


def on_accelerator(state: PyTree) -> bool:
    """Whether the chains are on a GPU or TPU, and not on the host's own processor."""
    return all(device.platform != "cpu" for device in jax.tree.leaves(state)[0].devices())


class DeviceDraws:
    """Chunks of draws on the device, put together once all are there.

    That takes twice their memory for a moment, as it does in NumPyro's ``MCMC``. A chunk is added
    by one assignment: an interrupt leaves it out, or in.

    :param states: states that the run starts with.
    """

    on_device: ClassVar[bool] = True

    def __init__(self, states: list[PyTree]) -> None:
        self._taken: tuple[Position, list[PyTree], list[tuple[int, PyTree]]] = (
            Position(),
            states,
            [],
        )

    @property
    def position(self) -> Position:
        """How far the run has come."""
        return self._taken[0]

    @property
    def states(self) -> list[PyTree]:
        """Where the chains are."""
        return self._taken[1]

    def add(
        self, fields: dict[str, PyTree] | None, position: Position, states: list[PyTree]
    ) -> None:
        """Add a chunk, whose leaves have the axes (chain, draw, ...); None for warm-up."""
        before, _, chunks = self._taken
        if fields is not None:
            chunks = [*chunks, (before.kept, fields)]
        self._taken = position, states, chunks

    def take(self, like: dict[str, PyTree]) -> dict[str, PyTree] | None:
        """Return the draws; they are given away.

        :param like: fields of a state, which tell random keys from numbers.
        """
        position, states, chunks = self._taken
        if not chunks:
            return None
        self._taken = position, states, []
        rooms = jax.tree.map(
            lambda x: jnp.zeros((x.shape[0], position.kept, *x.shape[2:]), x.dtype), chunks[0][1]
        )
        while chunks:
            begin, fields = chunks.pop(0)
            rooms = _fill(rooms, fields, begin)
        return wrap_keys(rooms, like)


@partial(jax.jit, donate_argnums=0)
def _fill(rooms: PyTree, fields: PyTree, begin: Array) -> PyTree:
    """Write a chunk; what follows its last right draw is written over, or has no room."""

    def fill(room: Array, new: Array) -> Array:
        here = begin + jnp.arange(new.shape[1])
        return room.at[:, here].set(new, mode="drop", unique_indices=True, indices_are_sorted=True)

    return jax.tree.map(fill, rooms, fields)


def lanes_on_device(lanes: list[PyTree], batched: bool) -> PyTree:
    """Return the draws of a chunk with the axes (chain, draw, ...); the last ones may be none.

    :param lanes: as :func:`numpyro_score.infer._draws.by_chain` takes them.
    """
    return lanes[0] if batched else jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)


def few_rows(rows: list[PyTree], count: int) -> tuple[list[PyTree], int]:
    """Return a few of the first ``count`` rows, and how many: R-hat in a bar needs no more."""
    here = np.unique(np.linspace(0, count - 1, _ROWS_FOR_THE_BAR).round().astype(int))
    return jax.tree.map(lambda x: np.asarray(x[here]), rows), len(here)
