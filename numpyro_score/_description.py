"""Networks and what goes with them, in JSON and arrays: enough to build them again, and no code.

A file says by name which classes and functions there were; only those of the packages below are
looked up, and of classes only such as hold data. Nothing of them is called: fields are set.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from numpyro_score._checks import is_array
from numpyro_score._typing import Array
from numpyro_score.samplers import AnnealedParticles, Langevin
from numpyro_score.sde import SDE

_CLASSES = (eqx.Module, constraints.Constraint, AnnealedParticles, Langevin, SDE)
_PACKAGES = ("numpyro_score", "equinox", "numpyro")
_FUNCTIONS = ("jax.nn", "jax.numpy", "jax.lax")
Node = Any


class UndescribableError(ValueError):
    """Something that cannot be built again without the code that made it."""


class UnknownError(ValueError):
    """A description of something that is not there, or not the same any more."""


def describe(obj: Any) -> tuple[Node, list[tuple[str, Array]]]:
    """Return a description of ``obj``, and its arrays by where they stand in it.

    :raises UndescribableError: naming the part that it holds and that has no description.
    """
    arrays: list[tuple[str, Array]] = []
    return _describe(obj, "", arrays), arrays


def _describe(obj: Any, path: str, arrays: list[tuple[str, Array]]) -> Node:
    if isinstance(obj, np.generic):
        # A size or a name must not come back as an array, which is no static field.
        obj = float(obj) if jnp.issubdtype(obj.dtype, jnp.floating) else obj.item()
    if obj is None or isinstance(obj, (bool, int, str)):
        return {"value": obj}
    if isinstance(obj, float):
        return {"value": obj} if math.isfinite(obj) else {"float": repr(obj)}
    if is_array(obj):
        arrays.append((path, jnp.asarray(obj)))
        return {"array": path}
    if type(obj) in (tuple, list):
        items = [_describe(item, f"{path}[{i}]", arrays) for i, item in enumerate(obj)]
        return {type(obj).__name__: items}
    if type(obj) is dict and all(isinstance(key, str) for key in obj):
        items = [[key, _describe(obj[key], f"{path}[{key!r}]", arrays)] for key in obj]
        return {"dict": items}
    if isinstance(obj, _CLASSES) and _is_known(type(obj)):
        fields = {
            name: _describe(value, f"{path}.{name}", arrays) for name, value in _fields_of(obj)
        }
        return {"object": _name_of(type(obj)), "fields": fields}
    return {"function": _name_of_function(obj, path)}


def _is_known(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in _PACKAGES


def _name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _fields_of(obj: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(obj):
        names = [field.name for field in dataclasses.fields(obj)]
        return ((name, getattr(obj, name)) for name in names if hasattr(obj, name))
    return iter(vars(obj).items())


def _name_of_function(obj: Any, path: str) -> str:
    name = getattr(obj, "__name__", None)
    for module in _FUNCTIONS:
        if callable(obj) and getattr(importlib.import_module(module), str(name), None) is obj:
            return f"{module}:{name}"
    what = f"the {type(obj).__name__} {name}" if name else f"a {type(obj).__name__}"
    where = path.lstrip(".") or "at the top"
    raise UndescribableError(f"{what} ({where}) is not of this package, nor a function of JAX")


def build(node: Node, arrays: dict[str, Array]) -> Any:
    """Return what :func:`describe` described.

    :raises UnknownError: for a class, function or field that there is not.
    """
    kind = next(iter(node))
    value = node[kind]
    if kind == "value":
        return value
    if kind == "float":
        return float(value)
    if kind == "array":
        return arrays[value]
    if kind in ("tuple", "list"):
        return {"tuple": tuple, "list": list}[kind](build(item, arrays) for item in value)
    if kind == "dict":
        return {key: build(item, arrays) for key, item in value}
    if kind == "function":
        module, _, name = value.partition(":")
        if module not in _FUNCTIONS or not hasattr(importlib.import_module(module), name):
            raise UnknownError(f"it names a function {value}, which there is not")
        return getattr(importlib.import_module(module), name)
    if kind == "object":
        return _build_object(
            value, {name: build(item, arrays) for name, item in node["fields"].items()}
        )
    raise UnknownError(f"it describes a {kind!r}, which this version does not know")


def _build_object(name: str, fields: dict[str, Any]) -> Any:
    cls = _find_class(name)
    if dataclasses.is_dataclass(cls):
        known = {field.name for field in dataclasses.fields(cls)}
        if set(fields) != known:
            raise UnknownError(
                f"its {cls.__name__} has the fields {sorted(fields)}, in this version it has "
                f"{sorted(known)}"
            )
    obj: Any = object.__new__(cls)
    for field, value in fields.items():
        object.__setattr__(obj, field, value)
    return obj


def _find_class(name: str) -> type:
    module, _, qualname = name.partition(":")
    if module.partition(".")[0] not in _PACKAGES:
        raise UnknownError(
            f"it names {name}, which is of none of the packages {', '.join(_PACKAGES)}"
        )
    try:
        cls: Any = importlib.import_module(module)
        for part in qualname.split("."):
            cls = getattr(cls, part)
    except (ImportError, AttributeError):
        raise UnknownError(f"it names {name}, which is not there in this version") from None
    if not (isinstance(cls, type) and issubclass(cls, _CLASSES)):
        raise UnknownError(f"it names {name}, which is no network")
    return cls
