"""What arguments, objectives and networks hold, in words that are the same in any process."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpyro.distributions as dist

from numpyro_score._array_file import digest_arrays
from numpyro_score._checks import is_array, is_concrete
from numpyro_score._typing import PyTree


def digest_contents(obj: Any) -> str:
    """Return a short hash of the arrays, numbers and texts that ``obj`` holds, and where.

    Pytrees among its attributes are looked into; of other things it is the class that counts. What
    a function closes over is not seen.
    """
    if isinstance(obj, partial):
        held: PyTree = (obj.args, obj.keywords)
    else:
        held = getattr(obj, "__dict__", obj)
    return hashlib.sha256(json.dumps(list(_contents(held))).encode()).hexdigest()[:16]


def digest_structure(tree: PyTree) -> str:
    """Return a short hash of all but the arrays: classes, sizes, and functions by their names."""
    structure = words(jax.tree.structure(tree, is_leaf=_is_distribution))
    leaves = [(name, "" if is_array(leaf) else words(leaf)) for name, leaf in named_leaves(tree)]
    return hashlib.sha256(json.dumps([structure, leaves]).encode()).hexdigest()[:16]


def words(obj: Any) -> str:
    """Return the ``repr`` of ``obj`` without what changes from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(obj))


def leaf_names(tree: PyTree) -> list[str]:
    """Return names that the leaves have in any process, in the order that JAX has them in this."""
    leaves, structure = jax.tree.flatten(tree)
    slots = jax.tree.unflatten(structure, [_Slot(i) for i in range(len(leaves))])
    names = {leaf.index: name for name, leaf in named_leaves(slots) if isinstance(leaf, _Slot)}
    # A distribution that flattens itself may have others than its fields.
    return [names.get(i, f"[leaf {i}]") for i in range(len(leaves))]


@dataclass(frozen=True)
class _Slot:
    index: int


def named_leaves(tree: PyTree) -> Iterator[tuple[str, Any]]:
    """Yield leaves with their places, in distributions by the names of fields."""
    for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=_is_distribution):
        where = jax.tree_util.keystr(path)
        if _is_distribution(leaf):
            inside = named_leaves(_fields(leaf))
            yield from ((f"{where}: {type(leaf).__name__}{at}", inner) for at, inner in inside)
        else:
            yield where, leaf


def _contents(tree: PyTree) -> Iterator[tuple[str, str]]:
    """Yield places, and what is there."""
    for where, leaf in named_leaves(tree):
        if is_array(leaf) and is_concrete(leaf) and leaf.dtype != object:
            yield where, digest_arrays(leaf)
        elif isinstance(leaf, (int, float, complex, str, bytes)):
            yield where, repr(leaf)
        else:
            yield where, f"{type(leaf).__module__}.{type(leaf).__qualname__}"


def _is_distribution(x: Any) -> bool:
    return isinstance(x, dist.Distribution)


def _fields(distribution: dist.Distribution) -> dict[str, Any]:
    # By name: NumPyro flattens them in the order of a set, which is another in each process.
    names = type(distribution).gather_pytree_data_fields()
    return {name: vars(distribution).get(name) for name in names}
