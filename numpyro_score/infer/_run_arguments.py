"""Arguments of a model, parted into arrays that are traced and all the rest."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._array_file import digest_arrays
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
        rest = [_stable(leaf) for leaf in self._rest]
        text = [np.frombuffer(part.encode(), np.uint8) for part in rest]
        return digest_arrays([*self.arrays, *text])


def _rest_key(leaf: Any) -> Hashable:
    try:
        hash(leaf)
    except TypeError:
        return id(leaf)
    return type(leaf), leaf  # 1, 1.0 and True are equal


def _stable(leaf: Any) -> str:
    """Return the same text for the same value in every process; of other things, their class."""
    if leaf is None or isinstance(leaf, (bool, int, float, complex, str, bytes, np.generic)):
        return repr(leaf)
    return f"{type(leaf).__module__}.{type(leaf).__qualname__}"


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array):
        return True
    if not isinstance(leaf, np.ndarray):
        return False
    return leaf.dtype.kind in "biufc" or leaf.dtype == jnp.bfloat16


def under_transform(*trees: PyTree) -> bool:
    """Whether the values cannot be looked at now, because jit, vmap or pmap traces us."""
    return not all(is_concrete(leaf) for leaf in jax.tree.leaves(trees))


def check_chains(init_params: PyTree, num_chains: int) -> None:
    """Refuse starts of another number of chains."""
    leading = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(init_params)}
    if num_chains > 1 and leading - {(num_chains,)}:
        raise ValueError(
            "`init_params` must have the same leading dimension as `num_chains`: expected "
            f"{num_chains}, got {sorted(leading)}."
        )
