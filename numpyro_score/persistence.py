"""Learned networks and distributions in files."""

from __future__ import annotations

import os
from importlib.metadata import version
from operator import itemgetter
from typing import Any

import equinox as eqx
import jax

from numpyro_score._array_file import Kind, Leaf, match, read_file, write_file
from numpyro_score._checks import is_array
from numpyro_score._contents import leaf_names
from numpyro_score._description import UndescribableError, UnknownError, build, describe
from numpyro_score.distributions import (
    DensityDistribution,
    DiffusionDistribution,
    EnergyDistribution,
    LearnedDistribution,
    Mixture,
    Product,
    ScoreDistribution,
)
from numpyro_score.distributions._composed import ComposedDistribution
from numpyro_score.networks import as_network
from numpyro_score.training import FitResult

_DISTRIBUTIONS: dict[str, type[LearnedDistribution]] = {
    cls.__name__: cls
    for cls in (
        DensityDistribution,
        DiffusionDistribution,
        EnergyDistribution,
        Mixture,
        Product,
        ScoreDistribution,
    )
}


class LoadError(ValueError):
    """A file that holds no network, or not the one that was asked for."""


_FILE = Kind("numpyro_score.network", 1, "numpyro_score.save", LoadError)
#: How arrays without a description are named; the key paths of JAX that older versions wrote differ
#: from process to process where a distribution of NumPyro is inside.
_NAMING = "by field"
_NAME = itemgetter(0)


def save(path: str | os.PathLike[str], obj: Any) -> None:
    """Write a network or a distribution to a file, for :func:`load` in any other process.

    The file holds arrays, and in JSON what they belong to; nothing in it runs when it is read. It
    appears whole or not at all.

    :param path: file to write; an existing one is replaced.
    :param obj: a network (anything that :func:`~numpyro_score.networks.as_network` accepts), a
        distribution of this package, or a ``FitResult``, of which the network is kept. Networks of
        this package, and Equinox modules made of Equinox's layers and functions of JAX, can be
        loaded without the code that made them; of others the arrays are written, and :func:`load`
        needs ``like``.
    :raises TypeError: ``obj`` is none of these.

    >>> import os, tempfile, jax, jax.numpy as jnp
    >>> import numpyro_score
    >>> from numpyro_score.networks import EnergyMLP
    >>> network = EnergyMLP(2, width=8, key=jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "energy.npz")
    ...     numpyro_score.save(path, network)
    ...     numpyro_score.load(path)(jnp.array([3.0, 4.0])).item()
    12.5
    """
    obj = _savable(obj)
    extra = {"class": type(obj).__name__, "numpyro_score": version("numpyro_score")}
    try:
        tree, arrays = describe(_parts(obj))
        write_file(_FILE, path, arrays, extra | {"tree": tree})
    except UndescribableError as why:
        held = eqx.filter(obj, is_array)
        arrays = sorted(zip(leaf_names(held), jax.tree.leaves(held), strict=True), key=_NAME)
        apart = {"tree": None, "naming": _NAMING, "why": str(why)}
        write_file(_FILE, path, arrays, extra | apart)


def load(path: str | os.PathLike[str], like: Any = None) -> Any:
    """Read what :func:`save` wrote.

    :param path: file to read.
    :param like: a network or distribution of the same architecture. Needed where the file holds
        one that is not of this package; elsewhere what is loaded is compared with it.
    :return: the network (an Equinox module) or distribution.
    :raises LoadError: a file that is truncated, altered, of another version of the format, or of
        another architecture than ``like``; the message says which.
    :raises FileNotFoundError: there is no such file.
    """
    leaves, header = read_file(_FILE, path)
    like = None if like is None else _savable(like)
    if header["tree"] is None and like is not None:
        return _replaced(path, leaves, header, like)
    if header["tree"] is None:
        raise LoadError(
            f"{os.fspath(path)} holds the arrays of a {header['class']} and cannot build it, "
            f"because {header['why']}: build one of the same structure by your own code, and pass "
            "it as `like`."
        )
    try:
        loaded = _assemble(build(header["tree"], {leaf.path: leaf.value for leaf in leaves}))
    except UnknownError as why:
        raise LoadError(
            f"{os.fspath(path)} was written by numpyro_score {header['numpyro_score']}, and {why}."
        ) from None
    if like is not None:
        _check_architecture(path, loaded, like)
    return loaded


def _savable(obj: Any) -> Any:
    if isinstance(obj, FitResult):
        return obj.network
    if isinstance(obj, LearnedDistribution):
        if type(obj).__name__ not in _DISTRIBUTIONS:
            raise TypeError(f"save takes one of {list(_DISTRIBUTIONS)}, got {type(obj).__name__}.")
        return obj
    return as_network(obj)


def _parts(obj: Any) -> Any:
    """Return a network itself, or of a distribution what its constructor takes."""
    if not isinstance(obj, LearnedDistribution):
        return {"network": obj}
    if isinstance(obj, ComposedDistribution):
        members = [_parts(d) if isinstance(d, LearnedDistribution) else d for d in obj._members]
        return {
            "distribution": type(obj).__name__,
            "members": members,
            "options": obj._options(),
        }
    return {
        "distribution": type(obj).__name__,
        "network": obj.network,
        "event_shape": obj.event_shape,
        "options": obj._options(),
    }


def _assemble(parts: dict[str, Any]) -> Any:
    if "distribution" not in parts:
        return parts["network"]
    cls = _DISTRIBUTIONS.get(parts["distribution"])
    if cls is None:
        raise UnknownError(f"it holds a {parts['distribution']}, which there is not")
    if "members" in parts:
        return cls([_assemble(member) for member in parts["members"]], **parts["options"])
    return cls(network=parts["network"], event_shape=parts["event_shape"], **parts["options"])


def _replaced(
    path: str | os.PathLike[str], leaves: list[Leaf], header: dict[str, Any], like: Any
) -> Any:
    """Return ``like`` with the arrays of the file."""
    if header.get("naming") != _NAMING:
        raise LoadError(
            f"{os.fspath(path)} was written by an older numpyro_score, whose names of arrays may "
            "have another meaning in each process: save the network or distribution again."
        )
    if header["class"] != type(like).__name__:
        raise LoadError(
            f"{os.fspath(path)} holds a {header['class']}, and `like` is a {type(like).__name__}."
        )
    arrays, rest = eqx.partition(like, is_array)
    return eqx.combine(match(_FILE, path, leaves, arrays, leaf_names(arrays)), rest)


def _check_architecture(path: str | os.PathLike[str], loaded: Any, like: Any) -> None:
    ours, theirs = (eqx.partition(obj, is_array) for obj in (like, loaded))
    shapes = [
        [
            (name, x.shape, x.dtype)
            for name, x in zip(leaf_names(arrays), jax.tree.leaves(arrays), strict=True)
        ]
        for arrays, _ in (ours, theirs)
    ]
    if shapes[0] == shapes[1] and eqx.tree_equal(ours[1], theirs[1]):
        return
    differ = sorted(set(shapes[0]) ^ set(shapes[1]), key=str)
    what = f", in {differ[0][0]} first" if differ else ""
    raise LoadError(
        f"{os.fspath(path)} holds a {type(loaded).__name__} of another architecture than "
        f"`like`{what}."
    )
