"""A fit on disk, so that one that was killed goes on where it was."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._array_file import CheckpointError, Kind, match, read_file, write_file
from numpyro_score._contents import leaf_names
from numpyro_score._typing import PyTree

_FILE = Kind("numpyro_score.fit", 3, "fit(..., checkpoint=...)", CheckpointError)
_SECONDS = 5.0
_SHARE = 0.02
_HISTORY = "history: "


class Snapshot(NamedTuple):
    """What a fit has at the end of a chunk.

    - **trees** - trees of arrays by name: all that the next chunk starts with.
    - **history** - arrays by name, of any length.
    - **facts** - numbers and words.
    """

    trees: dict[str, PyTree]
    history: dict[str, np.ndarray]
    facts: dict[str, Any]


class Checkpoint:
    """One file, replaced as a whole every few seconds.

    :param path: of the file.
    :param fingerprint: what the fit depends on, in JSON; a file with another is refused.
    :raises ValueError: its folder is not there.
    """

    def __init__(self, path: str | os.PathLike[str], fingerprint: dict[str, Any]) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise ValueError(
                f"checkpoint must be a file in a folder that is there, got {self.path}: make "
                f"{self.path.parent} first."
            )
        self.fingerprint = fingerprint
        self._due = time.monotonic() + _SECONDS

    def read(self, like: dict[str, PyTree]) -> Snapshot | None:
        """Return what the file holds, or None where there is none.

        :param like: a tree of the same structure for each of the names that there may be.
        :raises CheckpointError: a damaged file, or the checkpoint of another fit.
        """
        if not self.path.exists():
            return None
        leaves, header = read_file(_FILE, self.path)
        self._compare(header["fingerprint"])
        # Trees have their shapes from what was asked for, histories are as long as they are.
        of_trees = [leaf for leaf in leaves if not leaf.path.startswith(_HISTORY)]
        like = {name: like[name] for name in header["trees"]}
        trees = match(_FILE, self.path, of_trees, like, leaf_names(like))
        history = {
            leaf.path.removeprefix(_HISTORY): np.asarray(leaf.value)
            for leaf in leaves
            if leaf.path.startswith(_HISTORY)
        }
        return Snapshot(trees, history, header["facts"])

    @property
    def is_due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() >= self._due

    def write(self, snapshot: Snapshot) -> None:
        """Replace the file.

        :raises OSError: it cannot be written; the old one is then still there.
        """
        begin = time.monotonic()
        try:
            self._write(snapshot)
        finally:
            # Large networks take long to write: no more than a fiftieth of the time goes into that.
            end = time.monotonic()
            self._due = end + max(_SECONDS, (end - begin) / _SHARE)

    def _write(self, snapshot: Snapshot) -> None:
        trees = snapshot.trees
        leaves = list(zip(leaf_names(trees), jax.tree.leaves(trees), strict=True))
        history = snapshot.history.items()
        leaves += [(_HISTORY + name, jnp.asarray(values)) for name, values in history]
        extra = {
            "fingerprint": self.fingerprint,
            "trees": sorted(trees),
            "facts": snapshot.facts,
        }
        write_file(_FILE, self.path, leaves, extra)

    def _compare(self, there: dict[str, Any]) -> None:
        differences = [
            f"{name}: {there.get(name)!r} there, {self.fingerprint.get(name)!r} here"
            for name in sorted(there.keys() | self.fingerprint.keys())
            if there.get(name) != self.fingerprint.get(name)
        ]
        if differences:
            raise CheckpointError(
                f"{self.path} is the checkpoint of another fit ({'; '.join(differences)}). Give "
                "another path, or fit with what it was begun with."
            )
