"""Arguments of a model, parted into arrays that are traced and all the rest."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._array_file import digest_arrays
from numpyro_score._checks import is_concrete
from numpyro_score._contents import digest_contents
from numpyro_score._typing import Array, PyTree

# A range of fewer steps of float32 than that is computed with in float64, where NumPy does.
_COARSE = 1e-5


class RunArguments:
    """``(args, kwargs)`` of one run.

    Arrays are traced, but for those of NumPy that JAX's precision does not hold: these are
    constants, from which the model computes in their own precision, as under NumPyro.

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

        :raises TypeError: where an argument has parts that cannot be compared, or that may have
            been changed in place since they were.
        """
        shapes = tuple((x.shape, x.dtype, _is_weak(x)) for x in self.arrays)
        key = (self._structure, tuple(map(_rest_key, self._rest)), shapes)
        hash(key)
        return key

    def digest(self) -> str:
        """Return a hash of the contents of the arrays and of the other leaves."""
        return digest_contents((self.args, self.kwargs))


def _rest_key(leaf: Any) -> Hashable:
    if isinstance(leaf, np.ndarray) and leaf.dtype != object:
        return np.ndarray, leaf.dtype.str, leaf.shape, digest_arrays([leaf])
    hash(leaf)
    # What is equal to nothing but itself is equal to itself when its contents have changed.
    by_identity = type(leaf).__hash__ is object.__hash__ and hasattr(leaf, "__dict__")
    if by_identity and not callable(leaf):
        raise TypeError(f"{type(leaf).__name__} is compared by identity alone.")
    return type(leaf), leaf  # 1, 1.0 and True are equal


def _is_weak(x: Array) -> bool:
    return getattr(x, "weak_type", False)  # random keys have none


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array):
        return True
    if not isinstance(leaf, np.ndarray):
        return False
    return leaf.dtype == jnp.bfloat16 or (leaf.dtype.kind in "biufc" and not _loses(leaf))


def _loses(x: np.ndarray) -> bool:
    """Whether JAX's precision takes from an array what a model may have taken from it by NumPy.

    Dates in seconds or places in metres lie far from zero: their differences are gone in float32.
    """
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    if dtype == x.dtype or not x.size:
        return False
    if x.dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return bool(x.min() < bounds.min or x.max() > bounds.max)
    if x.dtype.kind == "c":
        return _loses(x.real) or _loses(x.imag)
    axes = {0, x.ndim - 1} if x.ndim else set()
    return any(_is_coarse(x, dtype, axis) for axis in axes)


def _is_coarse(x: np.ndarray, dtype: np.dtype, axis: int) -> bool:
    least, most = np.fmin.reduce(x, axis), np.fmax.reduce(x, axis)  # of what is not NaN
    with np.errstate(over="ignore", invalid="ignore"):
        gap = np.spacing(np.maximum(-least, most).astype(dtype)).astype(x.dtype)
        spread = most - least
        # Infinity has no gaps.
        return bool(np.any((spread > 0) & (gap > _COARSE * spread)))


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
