"""What a tree looks like, in JSON: tuples, lists, dicts, and named tuples by their class."""

from __future__ import annotations

import importlib
from typing import Any

import jax

from numpyro_score._array_file import Kind
from numpyro_score._typing import PyTree


class StateFileError(ValueError):
    """A file that holds no state, or not the state that was asked for."""


STATE = Kind("numpyro_score.state", 1, "save_state", StateFileError)
# Named tuples are looked up in these packages, and in the kernel's own; never elsewhere, so that
# reading a file imports nothing that its author chose.
_PACKAGES = frozenset({"blackjax", "numpyro", "numpyro_score"})


def class_name(tree: PyTree) -> str:
    """Return ``module:name`` of the class of a node."""
    return f"{type(tree).__module__}:{type(tree).__qualname__}"


def describe(tree: PyTree) -> Any:
    """Return a description of the nodes of ``tree``, or None where it has others than we know."""
    try:
        return _describe(tree)
    except TypeError:
        return None


def _describe(tree: PyTree) -> Any:
    if tree is None:
        return {"none": []}
    if _is_named_tuple(tree):
        return {"named": class_name(tree), "fields": tree._fields, "items": _all(tree)}
    if type(tree) in (tuple, list):
        return {type(tree).__name__: _all(tree)}
    if type(tree) is dict and all(map(_is_name, tree)):
        return {"dict": [[key, _describe(tree[key])] for key in sorted(tree)]}
    if jax.tree_util.all_leaves([tree]):
        return {"leaf": []}
    raise TypeError(type(tree))


def _all(items: Any) -> list[Any]:
    return [_describe(item) for item in items]


def _is_name(key: Any) -> bool:
    # NumPyro keeps a metric by the tuple of the sites that it is of.
    if isinstance(key, tuple):
        return all(isinstance(part, str) for part in key)
    return isinstance(key, str)


def _is_named_tuple(tree: PyTree) -> bool:
    return isinstance(tree, tuple) and hasattr(tree, "_fields")


def rebuild(tree: Any, leaves: list[Any], packages: set[str]) -> PyTree:
    """Return the tree that :func:`describe` described.

    :param packages: where named tuples may come from, besides the packages we build on.
    """
    remaining = iter(leaves)

    def build(node: dict[str, Any]) -> PyTree:
        kind, value = next(iter(node.items()))
        if kind == "leaf":
            return next(remaining)
        if kind == "none":
            return None
        if kind == "dict":
            return {_name(key): build(item) for key, item in value}
        if kind == "named":
            return _named(value, tuple(node["fields"]), packages)(*map(build, node["items"]))
        return {"tuple": tuple, "list": list}[kind](map(build, value))

    return build(tree)


def _name(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


def _named(name: str, fields: tuple[str, ...], packages: set[str]) -> Any:
    module, _, qualname = name.partition(":")
    if module.partition(".")[0] not in _PACKAGES | packages:
        raise StateFileError(
            f"the state holds a {name}, which is of neither this package nor the kernel's: pass a "
            "state of the same kernel as `like`."
        )
    try:
        cls: Any = importlib.import_module(module)
        for part in qualname.split("."):
            cls = getattr(cls, part)
    except (ImportError, AttributeError):
        raise StateFileError(f"the state holds a {name}, which is not there any more.") from None
    if not (isinstance(cls, type) and issubclass(cls, tuple)):
        raise StateFileError(f"the state holds a {name}, which is no named tuple.")
    if getattr(cls, "_fields", None) != fields:
        raise StateFileError(
            f"the state holds a {name} with the fields {fields}, but this version has "
            f"{getattr(cls, '_fields', None)}: it was saved by another version."
        )
    return cls
