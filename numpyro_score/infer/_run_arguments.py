"""Arguments of a model, parted into arrays that are traced and all the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array, PyTree


class RunArguments:
    """``(args, kwargs)`` of one run.

    :param args: positional arguments of the model.
    :param kwargs: keyword arguments of the model.
    """

    def __init__(self, args: tuple, kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs
        leaves, self._structure = jax.tree.flatten((args, kwargs))
        self._is_array = [_is_array(leaf) for leaf in leaves]
        self._rest = [None if is_array else leaf for leaf, is_array in self._zip(leaves)]
        self.arrays = [jnp.asarray(leaf) for leaf, is_array in self._zip(leaves) if is_array]

    def _zip(self, leaves: list[Any]) -> Any:
        return zip(leaves, self._is_array, strict=True)

    def rebuild(self, arrays: list[Array]) -> tuple[tuple, dict[str, Any]]:
        """Return ``(args, kwargs)`` with other arrays, which may be tracers."""
        remaining = iter(arrays)
        leaves = [next(remaining) if is_array else leaf for leaf, is_array in self._zip(self._rest)]
        return jax.tree.unflatten(self._structure, leaves)

    def key(self) -> Hashable:
        """Return what a program depends on that takes the arrays as arguments.

        :raises TypeError: where an argument has parts that cannot be compared.
        """
        shapes = tuple((x.shape, x.dtype, x.weak_type) for x in self.arrays)
        key = (self._structure, tuple(map(_rest_key, self._rest)), shapes)
        hash(key)
        return key

    def digest(self) -> str:
        """Return a hash of the contents of the arrays and of the other leaves."""
        rest = [repr(leaf) for leaf in self._rest if not callable(leaf)]
        text = [np.frombuffer(part.encode(), np.uint8) for part in rest]
        return digest_arrays([*self.arrays, *text])


def _rest_key(leaf: Any) -> Hashable:
    try:
        hash(leaf)
    except TypeError:
        return id(leaf)
    return type(leaf), leaf  # 1, 1.0 and True are equal


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array):
        return True
    if not isinstance(leaf, np.ndarray):
        return False
    return leaf.dtype.kind in "biufc" or leaf.dtype == jnp.bfloat16


def digest_arrays(tree: PyTree) -> str:
    """Return a hash of dtype, shape and contents of every array in ``tree``."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def under_transform(*trees: PyTree) -> bool:
    """Whether the values cannot be looked at now, because jit, vmap or pmap traces us."""
    return not all(is_concrete(leaf) for leaf in jax.tree.leaves(trees))
