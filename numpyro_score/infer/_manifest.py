"""What run a checkpoint is of, and what differs where it is of another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from numpyro_score._array_file import CheckpointError, Leaf, read_file, replace_file
from numpyro_score._typing import PyTree
from numpyro_score.infer._keys import as_data
from numpyro_score.infer._netcdf import Variable
from numpyro_score.infer._state_tree import STATE, StateFileError

FORMAT = "numpyro_score.checkpoint"
VERSION = 2
# A program that is compiled on another machine may round a start otherwise.
_TOLERANCE = 1e-4


def write_manifest(directory: Path, fingerprint: dict[str, Any], variables: list[Variable]) -> None:
    """Write what run the directory is of."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "run": fingerprint,
        "variables": [variable._asdict() for variable in variables],
    }
    replace_file(directory / "manifest.json", json.dumps(content, indent=1).encode())


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint.

    :raises CheckpointError: where there is none, or none that this package reads.
    """
    path = directory / "manifest.json"
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{directory} holds no checkpoint (no manifest.json).") from None
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): start again in another directory."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not the manifest of a checkpoint.")
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {content.get('version')} of the format, and this package reads "
            f"version {VERSION}."
        )
    if not isinstance(content.get("run"), dict) or not isinstance(content.get("variables"), list):
        raise CheckpointError(f"{path} is damaged: start again in another directory.")
    return content


def check_manifest(directory: Path, fingerprint: dict[str, Any]) -> None:
    """Refuse the checkpoint of another run; the message says what differs."""
    there = dict(_entries(read_manifest(directory)["run"]))
    here = dict(_entries(json.loads(json.dumps(fingerprint))))
    differences = [
        f"{name}: {there.get(name)!r} there, {here.get(name)!r} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if differences:
        raise CheckpointError(
            f"{directory} is the checkpoint of another run ({'; '.join(differences)}). Give "
            "another directory, or run with what it was begun with."
        )


def _entries(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _entries(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_start(path: Path, start: list[PyTree]) -> None:
    """Refuse a checkpoint whose chains started elsewhere, or had another energy there.

    The start follows from model, data and key. A model that was edited gives itself away here.
    """
    try:
        leaves, _ = read_file(STATE, path)
    except (StateFileError, FileNotFoundError) as error:
        raise CheckpointError(f"{error}. Start again in another directory.") from error
    expected = jax.tree.leaves_with_path(start)
    names = [jax.tree_util.keystr(name) for name, _ in expected]
    changed = sorted(set(names) ^ {leaf.path for leaf in leaves})
    if not changed:
        pairs = zip(leaves, expected, strict=True)
        changed = [_change(leaf, value) for leaf, (_, value) in pairs if not _close(leaf, value)]
    if changed:
        raise CheckpointError(
            f"{path.parent} is the checkpoint of another run: its chains started otherwise "
            f"({'; '.join(changed[:5])}). Has the model changed? Give another directory, or run "
            "the model that it was begun with."
        )


def _change(leaf: Leaf, value: Any) -> str:
    there, here = (np.asarray(as_data(x)).ravel()[:3].tolist() for x in (leaf.value, value))
    return f"{leaf.path}: {there} there, {here} here"


def _close(leaf: Leaf, value: Any) -> bool:
    there, here = np.asarray(as_data(leaf.value)), np.asarray(as_data(value))
    if there.shape != here.shape or there.dtype != here.dtype:
        return False
    if there.dtype.kind != "f":
        return bool(np.array_equal(there, here))
    return bool(np.allclose(there, here, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
