"""Where draws go, chunk by chunk: into memory, where no file is asked for."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import PyTree

_ALIGNMENT = 64


class Position(NamedTuple):
    """How far a run has come: steps, kept draws per chain, and what went wrong on the way."""

    steps: int = 0
    kept: int = 0
    non_finite: int = 0
    divergent: int = 0


class Draws:
    """Draws in arrays with the axes (chain, draw, ...), which are filled from the front.

    :param num_kept: draws per chain there is room for.
    :param states: states that the run starts with.
    """

    on_device: ClassVar[bool] = False

    def __init__(self, num_kept: int, states: list[PyTree]) -> None:
        self.num_kept = num_kept
        self.position, self.states = Position(), states
        self._arrays: PyTree = None

    def add(
        self, fields: dict[str, PyTree] | None, position: Position, states: list[PyTree]
    ) -> None:
        """Add a chunk, whose leaves have the axes (chain, draw, ...); None for warm-up."""
        if fields is not None:
            self._fill(fields, slice(self.position.kept, position.kept))
        self.position, self.states = position, states

    def _fill(self, fields: dict[str, PyTree], here: slice) -> None:
        if self._arrays is None:
            self._arrays = jax.tree.map(self._room, fields)

        def fill(room: np.ndarray, new: np.ndarray) -> None:
            room[:, here] = new

        jax.tree.map(fill, self._arrays, fields)

    def _room(self, x: np.ndarray) -> np.ndarray:
        return _aligned((x.shape[0], self.num_kept, *x.shape[2:]), x.dtype)

    def take(self, like: dict[str, PyTree]) -> dict[str, PyTree] | None:
        """Return the draws as JAX arrays; they are given away, and not held twice.

        :param like: fields of a state, which tell random keys from numbers.
        """
        if self._arrays is None:
            return None
        leaves, structure = jax.tree.flatten(self._arrays)
        self._arrays = None
        out = []
        while leaves:
            # On a CPU this takes the memory over, where it is aligned; jnp.asarray copies twice.
            out.append(jax.device_put(leaves.pop(0)[:, : self.position.kept]))
        return wrap_keys(jax.tree.unflatten(structure, out), like)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    at = -memory.ctypes.data % _ALIGNMENT
    return memory[at : at + size].view(dtype).reshape(shape)


def by_chain(lanes: list[PyTree], count: int, batched: bool) -> PyTree:
    """Return the first ``count`` draws of every chain with the axes (chain, draw, ...).

    :param lanes: of each chain, leaves ``(draw, ...)``; or, ``batched``, of all chains at once,
        leaves ``(chain, draw, ...)``.
    """

    def join(*leaves: Any) -> np.ndarray:
        if batched:
            return np.asarray(leaves[0])[:, :count]
        return np.stack([np.asarray(leaf)[:count] for leaf in leaves])

    return jax.tree.map(join, *lanes)


def wrap_keys(fields: dict[str, PyTree], like: dict[str, PyTree]) -> dict[str, PyTree]:
    """Return ``fields`` with random keys made from their numbers, where ``like`` has keys."""

    def wrap(x: PyTree, like: Any) -> PyTree:
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
        return x

    out = {name: jax.tree.map(wrap, fields[name], like[name]) for name in like}
    return {name: out.get(name, value) for name, value in fields.items()}
