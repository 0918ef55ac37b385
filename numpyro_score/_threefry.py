"""JAX's default random numbers, several times as fast on a CPU.

On a CPU JAX writes threefry's twenty rounds as a loop of five turns, of some fifteen instructions
each, which in a step of a sampler takes longer than all else: MALA on eight schools 10.5 µs, and
3.6 with the rounds written out. XLA makes one kernel of those, which it vectorizes. The numbers
are the same, to the bit.

Keys are exchanged where a compiled loop begins, and exchanged again where it ends: nobody outside
sees them.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import define_prng_impl

from numpyro_score._typing import Array, PyTree

_NAME = "threefry2x32"
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def unroll_keys(tree: PyTree) -> PyTree:
    """Return ``tree`` with keys that draw the same numbers faster, where there are such keys.

    A key is a typed one of JAX's default implementation, or, in a field ``rng_key``, a raw one.
    """
    # Elsewhere JAX has kernels of its own; without that option it draws other numbers. What mypy
    # knows of the options is less than JAX documents.
    partitionable = getattr(jax.config, "jax_threefry_partitionable")  # noqa: B009
    if jax.default_backend() != "cpu" or not partitionable:
        return tree
    return jax.tree.map_with_path(_unroll, tree)


def restore_keys(tree: PyTree, like: PyTree) -> PyTree:
    """Return ``tree`` with its keys as they are in ``like``."""
    return jax.tree.map(_restore, tree, like)


def threefry_2x32(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Return the two words that the counters ``high`` and ``low`` are enciphered to.

    Salmon, Moraes, Dror & Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3": Threefry-2×32
    with 20 rounds.

    :param key: two words, ``(2,)``.
    """
    words = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY)
    high, low = high + words[0], low + words[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            high = high + low
            low = _rotate_left(low, rotation) ^ high
        high = high + words[(block + 1) % 3]
        low = low + words[(block + 2) % 3] + jnp.uint32(block + 1)
    return high, low


def _rotate_left(word: Array, count: int) -> Array:
    return (word << jnp.uint32(count)) | (word >> jnp.uint32(32 - count))


def _counters(shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = math.prod(shape)
    if size >= 2**32:
        raise NotImplementedError(f"{size} random numbers in one call; draw fewer than 2**32.")
    return jnp.zeros(shape, jnp.uint32), lax.iota(jnp.uint32, size).reshape(shape)


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(threefry_2x32(key, *_counters(shape)), axis=len(shape))


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    high, low = threefry_2x32(key, *_counters(shape))
    dtype = jnp.dtype(f"uint{bit_width}")
    if bit_width == 64:
        return (high.astype(dtype) << dtype.type(32)) | low.astype(dtype)
    return (high ^ low).astype(dtype)


def _fold_in(key: Array, data: Any) -> Array:
    return jnp.stack(threefry_2x32(key, jnp.uint32(0), jnp.uint32(data)))


def _seed(seed: Array) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl=_NAME))


@cache
def _implementation() -> Any:
    return define_prng_impl(
        key_shape=(2,),
        seed=_seed,
        split=_split,
        random_bits=_random_bits,
        fold_in=_fold_in,
        name=f"{_NAME} unrolled",
        tag="fru",
    )


def _is_typed(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _unroll(path: tuple[Any, ...], leaf: Any) -> Any:
    typed = _is_typed(leaf)
    raw = bool(path) and getattr(path[-1], "name", None) == "rng_key"
    if not (typed or raw) or jax.random.key_impl(leaf) != _NAME:
        return leaf
    data = jax.random.key_data(leaf) if typed else leaf
    return jax.random.wrap_key_data(data, impl=_implementation())


def _restore(leaf: Any, like: Any) -> Any:
    if not _is_typed(leaf) or leaf.dtype == like.dtype:
        return leaf
    data = jax.random.key_data(leaf)
    return jax.random.wrap_key_data(data, impl=_NAME) if _is_typed(like) else data
