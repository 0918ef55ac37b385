"""What is held by arguments or by an objective, by which a checkpoint knows it in any process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
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


def _contents(tree: PyTree) -> Iterator[tuple[str, str]]:
    """Yield places, and what is there."""
    for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=_is_distribution):
        where = jax.tree_util.keystr(path)
        if _is_distribution(leaf):
            inside = _contents(_fields(leaf))
            yield from ((f"{where}: {type(leaf).__name__}{at}", what) for at, what in inside)
        elif is_array(leaf) and is_concrete(leaf) and leaf.dtype != object:
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
