"""A file of named arrays: one ``.npz`` of their bytes and a JSON header, sealed by a hash."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array, PyTree


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or of another run."""


class Kind(NamedTuple):
    """What a file holds.

    - **name** - of the format, in the header.
    - **version** - of the format, in the header.
    - **writer** - the function that users write such files with.
    - **error** - raised where a file is none of this kind, or is damaged.
    """

    name: str
    version: int
    writer: str
    error: type[ValueError]


class Leaf(NamedTuple):
    """One array of a tree, and where it stands in it."""

    path: str
    value: Array


def write_file(
    kind: Kind,
    path: str | os.PathLike[str],
    leaves: list[tuple[str, Any]],
    extra: dict[str, Any],
) -> None:
    """Write arrays, and ``extra`` into the header."""
    entries: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for i, (name, leaf) in enumerate(leaves):
        leaf = jnp.asarray(leaf)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        # Bytes, and the dtype by name: NumPy's own format knows neither keys nor bfloat16.
        data = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        arrays[f"leaf_{i:05d}"] = np.frombuffer(data.tobytes(), np.uint8)
        entry = {"path": name, "dtype": data.dtype.name, "shape": data.shape}
        entries.append(entry | ({"key": str(jax.random.key_impl(leaf))} if is_key else {}))
    header: dict[str, Any] = {"format": kind.name, "version": kind.version, "leaves": entries}
    header |= extra
    header["sha256"] = _seal(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    replace_file(path, buffer.getvalue())


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that whoever looks, after a crash too, sees the old one or all of the new."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
    move_into_place(temporary, path)


def move_into_place(temporary: Path, path: Path) -> None:
    """Give a complete file its name, in this order on the disk, too: contents first."""
    _sync(temporary)
    os.replace(temporary, path)
    if os.name == "posix":
        _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(kind: Kind, path: str | os.PathLike[str]) -> tuple[list[Leaf], dict[str, Any]]:
    """Return the arrays and the header.

    :raises kind.error: for a file that is not as it was written.
    """
    name = os.fspath(path)
    try:
        # By way of its bytes: NumPy leaves a file open that it cannot read.
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        header = json.loads(arrays.pop("header").tobytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise kind.error(
            f"{name} was not written by {kind.writer}, or is damaged: {error}"
        ) from error
    if not isinstance(header, dict) or header.get("format") != kind.name:
        raise kind.error(f"{name} was not written by {kind.writer}.")
    if header.get("version") != kind.version:
        raise kind.error(
            f"{name} has version {header.get('version')} of the format, this package reads version "
            f"{kind.version}: load it with the package that saved it."
        )
    if header.pop("sha256", None) != _seal(header, arrays):
        raise kind.error(f"{name} was altered after it was written: its hash does not agree.")
    entries = zip(header["leaves"], sorted(arrays), strict=True)
    return [_leaf(kind, name, entry, arrays[key]) for entry, key in entries], header


def _leaf(kind: Kind, name: str, entry: dict[str, Any], data: np.ndarray) -> Leaf:
    array = np.frombuffer(data.tobytes(), jnp.dtype(entry["dtype"])).reshape(entry["shape"])
    value = jnp.asarray(array)
    if value.dtype != array.dtype:
        raise kind.error(
            f"{name}: {entry['path']} is {array.dtype}, which JAX holds only with "
            'jax.config.update("jax_enable_x64", True), as in the process that saved it.'
        )
    if "key" in entry:
        value = jax.random.wrap_key_data(value, impl=entry["key"])
    return Leaf(entry["path"], value)


def _seal(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def match(
    kind: Kind,
    path: str | os.PathLike[str],
    leaves: list[Leaf],
    like: PyTree,
    names: list[str] | None = None,
) -> PyTree:
    """Return the leaves, in whatever order, in the structure of ``like``, or say what differs.

    :param like: a tree of arrays, or of their shapes and dtypes.
    :param names: what the leaves of ``like`` are called in the file, if not by their key paths.
    """
    expected = jax.tree.leaves_with_path(like)
    paths = [jax.tree_util.keystr(path) for path, _ in expected] if names is None else names
    if sorted(paths) != sorted(leaf.path for leaf in leaves):
        ours, theirs = set(paths), {leaf.path for leaf in leaves}
        raise kind.error(
            f"{os.fspath(path)} holds something else than was asked for: it lacks "
            f"{sorted(ours - theirs)} and has {sorted(theirs - ours)} besides."
        )
    found = {leaf.path: leaf for leaf in leaves}
    ordered = [found[name] for name in paths]
    for leaf, (_, want) in zip(ordered, expected, strict=True):
        shape = jnp.shape(want)
        # JAX reads an array of NumPy in its own precision.
        known = hasattr(want, "dtype") and not isinstance(want, np.ndarray)
        dtype = want.dtype if known else jnp.result_type(want)
        if leaf.value.shape != shape or leaf.value.dtype != dtype:
            raise kind.error(
                f"{os.fspath(path)}: {leaf.path} has the shape {leaf.value.shape} and dtype "
                f"{leaf.value.dtype}; expected {shape} and {dtype}."
            )
    return jax.tree.unflatten(jax.tree.structure(like), [leaf.value for leaf in ordered])


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


def key_digest(rng_key: Any) -> str:
    """Return a short hash of random keys and of their implementation."""
    impl = ""
    if jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key):
        impl = str(jax.random.key_impl(rng_key))
    return hashlib.sha256((impl + digest_arrays(rng_key)).encode()).hexdigest()[:16]
