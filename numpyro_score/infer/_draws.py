"""Where draws go, chunk by chunk: into memory, where no file is asked for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import PyTree


class Draws:
    """Draws in arrays with the axes (chain, draw, ...), which are filled from the front.

    :param num_kept: draws per chain there is room for.
    """

    def __init__(self, num_kept: int) -> None:
        self.num_kept = num_kept
        self.count = 0
        self._arrays: PyTree = None

    def add(self, fields: dict[str, PyTree] | None, position: Any, states: list[PyTree]) -> None:
        """Add a chunk, whose leaves have the axes (chain, draw, ...); None for warm-up."""
        if fields is None:
            return
        if self._arrays is None:
            self._arrays = jax.tree.map(self._room, fields)
        size = jax.tree.leaves(fields)[0].shape[1]
        here = slice(self.count, self.count + size)

        def fill(room: np.ndarray, new: np.ndarray) -> None:
            room[:, here] = new

        jax.tree.map(fill, self._arrays, fields)
        self.count += size

    def _room(self, x: np.ndarray) -> np.ndarray:
        return np.empty((x.shape[0], self.num_kept, *x.shape[2:]), x.dtype)

    def take(self) -> dict[str, PyTree] | None:
        """Return the draws as JAX arrays; they are given away, and not held twice."""
        if self._arrays is None:
            return None
        leaves, structure = jax.tree.flatten(self._arrays)
        self._arrays = None
        out = []
        while leaves:
            out.append(jnp.asarray(leaves.pop(0)[:, : self.count]))
        return jax.tree.unflatten(structure, out)


def by_chain(rows: list[PyTree], count: int, num_chains: int, batched: bool) -> PyTree:
    """Return the first ``count`` rows of every chain with the axes (chain, draw, ...).

    :param rows: of each chain, leaves ``(rows, ...)``; or, ``batched``, of all chains at once,
        leaves ``(rows, chain, ...)``. A number that all chains share is repeated.
    """

    def join(*leaves: Any) -> np.ndarray:
        arrays = [np.asarray(leaf)[:count] for leaf in leaves]
        if not batched:
            return np.stack(arrays)
        if arrays[0].ndim < 2:
            return np.broadcast_to(arrays[0], (num_chains, count))
        return np.swapaxes(arrays[0], 0, 1)

    return jax.tree.map(join, *rows)


def wrap_keys(fields: dict[str, PyTree], like: dict[str, PyTree]) -> dict[str, PyTree]:
    """Return ``fields`` with random keys made from their numbers, where ``like`` has keys."""

    def wrap(x: PyTree, like: Any) -> PyTree:
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
        return x

    out = {name: jax.tree.map(wrap, fields[name], like[name]) for name in like}
    return {name: out.get(name, value) for name, value in fields.items()}
