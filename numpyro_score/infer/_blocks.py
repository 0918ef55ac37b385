"""Map a function over rows, a block of them at a time."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._capacity import rows_that_fit

_MAX_BLOCK = 256


def in_blocks(fn: Callable[[PyTree], PyTree], rows: PyTree, num_rows: Array) -> PyTree:
    """Map ``fn`` over the first ``num_rows`` of ``rows``; the others come out as anything.

    :param rows: leaves with the axis of rows in front.
    """
    leaves = jax.tree.leaves(rows)
    capacity = leaves[0].shape[0] if leaves else 1
    shapes = jax.eval_shape(fn, jax.tree.map(lambda x: x[0], rows))
    block = min(capacity, _MAX_BLOCK, rows_that_fit(shapes))
    mapped = batched(fn, block)

    def body(i: Array, out: PyTree) -> PyTree:
        # The last block may reach back into the one before it, whose rows come out the same.
        at = jnp.minimum(i * block, capacity - block)
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, block), rows)
        return jax.tree.map(
            lambda out, new: jax.lax.dynamic_update_slice_in_dim(out, new, at, 0),
            out,
            mapped(part),
        )

    out = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), shapes)
    return jax.lax.fori_loop(0, (num_rows + block - 1) // block, body, out)


def batched(fn: Callable[[PyTree], PyTree], size: int) -> Callable[[PyTree], PyTree]:
    """Map ``fn`` over the leading axis; a tree without arrays has none, and is repeated."""

    def mapped(tree: PyTree) -> PyTree:
        if jax.tree.leaves(tree):
            return jax.vmap(fn)(tree)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *jnp.shape(x))), fn(tree))

    return mapped
