"""Adapters: functions with parameters, Flax Linen and Flax NNX modules as Equinox modules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array, PyTree
from numpyro_score.networks._frozen import Constants

_ACCEPTED = (
    "an Equinox module, a function of x, a pair (apply_fn, params), a pair (Flax Linen module, "
    "variables), or a Flax NNX module"
)


class FunctionNetwork(eqx.Module):
    """A function of arrays as an Equinox module; made by the adapters of this file.

    :param params: pytree of the arrays that are trained.
    :param constants: arrays that are carried along and not trained.
    :param apply_fn: hashable function ``(params, constants, x[, condition]) -> output``.
    """

    params: PyTree
    constants: Constants
    apply_fn: Callable[..., Array] = eqx.field(static=True)

    def __call__(self, x: Array, *rest: Array) -> Array:
        """Evaluate the function at one event, and what follows it: a noise level, a condition."""
        return self.apply_fn(self.params, jax.lax.stop_gradient(self.constants.tree), x, *rest)


@dataclass(frozen=True)
class _PlainApply:
    function: Callable[..., Array]

    def __call__(self, params: PyTree, constants: PyTree, *args: Array) -> Array:
        return self.function(*args)


@dataclass(frozen=True)
class _FunctionApply:
    function: Callable[..., Array]

    def __call__(self, params: PyTree, constants: PyTree, *args: Array) -> Array:
        return self.function(params, *args)


@dataclass(frozen=True)
class _LinenApply:
    module: Any

    def __call__(self, params: PyTree, constants: PyTree, *args: Array) -> Array:
        return self.module.apply({"params": params, **constants}, *args)


@dataclass(frozen=True)
class _NnxApply:
    graphdef: Any

    def __call__(self, params: PyTree, constants: PyTree, *args: Array) -> Array:
        return _flax("nnx").merge(self.graphdef, params, constants)(*args)


def from_function(apply_fn: Callable[..., Array], params: PyTree) -> FunctionNetwork:
    """Return an Equinox module from a function and its parameters.

    :param apply_fn: hashable ``apply_fn(params, x)`` or ``apply_fn(params, x, condition)`` for
        one event ``x``.
    :param params: pytree of arrays; its floating-point leaves are trained.
    :return: the module.
    :raises TypeError: ``apply_fn`` is no hashable function.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.networks import from_function
    >>> energy = from_function(lambda p, x: 0.5 * p["scale"] * jnp.sum(x**2), {"scale": 2.0})
    >>> float(energy(jnp.array([3.0, 4.0])))
    25.0
    """
    _check_function(apply_fn, "apply_fn")
    return FunctionNetwork(_to_jax(params), Constants(()), _FunctionApply(apply_fn))


def from_linen(module: Any, variables: PyTree) -> FunctionNetwork:
    """Return an Equinox module from a Flax Linen module and its variables.

    :param module: a ``flax.linen.Module`` for one event, without random numbers at the call.
    :param variables: what ``module.init`` returned. The collection ``params`` is trained; others
        (running averages) are constants.
    :return: the module.
    :raises TypeError: not a Linen module, or variables without ``params``.
    :raises ImportError: Flax is not installed.
    """
    if not isinstance(module, _flax("linen").Module):
        raise TypeError(f"from_linen takes a flax.linen.Module, got {type(module).__name__}.")
    try:
        collections = dict(variables)
        params = collections.pop("params")
    except (TypeError, ValueError, KeyError):
        raise TypeError(
            "variables must be what module.init returned, a dictionary with the key 'params'; "
            f"got {jax.tree.structure(variables)}."
        ) from None
    _check_hashable(module, "module")
    return FunctionNetwork(_to_jax(params), Constants(_to_jax(collections)), _LinenApply(module))


def from_nnx(module: Any) -> FunctionNetwork:
    """Return an Equinox module from a Flax NNX module.

    :param module: an ``nnx.Module`` for one event, in evaluation mode. Its ``nnx.Param`` are
        trained; other variables are constants, and changes to them at the call are dropped.
    :return: the module; later changes of the argument do not reach it.
    :raises TypeError: not an NNX module.
    :raises ImportError: Flax is not installed.
    """
    nnx = _flax("nnx")
    if not isinstance(module, nnx.Module):
        raise TypeError(f"from_nnx takes a flax.nnx.Module, got {type(module).__name__}.")
    graphdef, params, constants = nnx.split(module, nnx.Param, ...)
    return FunctionNetwork(params, Constants(constants), _NnxApply(graphdef))


def as_network(obj: Any) -> Callable[..., Array]:
    """Return an energy or score as an Equinox module whose arrays are leaves.

    :param obj: an Equinox module (returned as it is); a plain function of one event (arrays that
        it closes over are constants, never trained); a pair ``(apply_fn, params)``; a pair of a
        Flax Linen module and its variables; a Flax NNX module.
    :return: an Equinox module ``network(x)`` or ``network(x, condition)``.
    :raises TypeError: anything else.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.networks import as_network
    >>> network = as_network((lambda p, x: 0.5 * jnp.sum((x - p) ** 2), jnp.ones(2)))
    >>> float(network(jnp.array([1.0, 3.0])))
    2.0
    """
    if isinstance(obj, eqx.Module) and callable(obj):
        return obj
    if _is_flax(obj, "nnx"):
        return from_nnx(obj)
    if isinstance(obj, tuple) and len(obj) == 2:
        first, second = obj
        if _is_flax(first, "linen"):
            return from_linen(first, second)
        if callable(first):
            return from_function(first, second)
    # A Linen module is callable, too, but has no parameters to be called with.
    if callable(obj) and not isinstance(obj, type) and not _is_flax(obj, "linen"):
        _check_hashable(obj, "function")
        return FunctionNetwork((), Constants(()), _PlainApply(obj))
    raise TypeError(f"a network must be {_ACCEPTED}; got {type(obj).__name__}.")


def _is_flax(obj: Any, room: str) -> bool:
    """Whether ``obj`` is a module of Flax, without importing Flax to find out."""
    flax = sys.modules.get(f"flax.{room}")
    return flax is not None and isinstance(obj, flax.Module)


def _flax(room: str) -> ModuleType:
    try:
        import flax.linen
        import flax.nnx
    except ImportError as error:
        raise ImportError("a Flax network needs Flax: pip install 'numpyro_score[flax]'") from error
    return getattr(flax, room)


def _to_jax(params: PyTree) -> PyTree:
    # NumPy arrays and numbers would be taken for static structure, and stay untrained.
    return jax.tree.map(
        lambda p: jnp.asarray(p) if isinstance(p, (np.ndarray, np.generic, float)) else p, params
    )


def _check_function(function: Any, name: str) -> None:
    if not callable(function):
        raise TypeError(f"{name} must be a function, got {type(function).__name__}.")
    _check_hashable(function, name)


def _check_hashable(obj: Any, name: str) -> None:
    try:
        hash(obj)
    except TypeError:
        raise TypeError(
            f"{name} must be hashable, since it becomes static structure; got an unhashable "
            f"{type(obj).__name__}. Give its arrays apart, as params."
        ) from None
