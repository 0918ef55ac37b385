"""A directory of draws that a run adds to, and goes on from after it was killed.

- ``manifest.json`` - what run it is of; written last when a directory is set up.
- ``start.npz`` - the states that the run started with.
- ``draws-000000.nc``, … - draws, for ArviZ.
- ``state.npz`` - where the run is, and which of the files belong to it. A chunk counts from the
  moment when this file is replaced.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from numpyro_score._array_file import (
    CheckpointError,
    match,
    move_into_place,
    read_file,
    write_file,
)
from numpyro_score._typing import PyTree
from numpyro_score.infer._draws import Position
from numpyro_score.infer._manifest import (
    check_manifest,
    check_start,
    read_manifest,
    write_manifest,
)
from numpyro_score.infer._netcdf import Variable, read_chunk, write_chunk
from numpyro_score.infer._state_tree import STATE, StateFileError

_SECONDS_BETWEEN_FILES = 5.0
# Of the time since the start: a run of days has hundreds of files, and not as many as seconds.
_SHARE_BETWEEN_FILES = 0.01
_MAX_PENDING_BYTES = 2**26
_OURS = ("warmup", "start.npz", ".start.npz.tmp", ".manifest.json.tmp")


class Store:
    """Where a run writes its draws.

    :param directory: of this run alone; it is made where there is none.
    :param fingerprint: what the draws depend on, in JSON.
    :param variables: what a chunk holds, in the order of its leaves.
    :param start: states that the run starts with.
    :param every_chunk: write a file for each chunk, not just now and then.
    :raises CheckpointError: where the directory is of another run, or damaged.
    """

    on_device: ClassVar[bool] = False

    def __init__(
        self,
        directory: str,
        fingerprint: dict[str, Any],
        variables: list[Variable],
        start: list[PyTree],
        *,
        every_chunk: bool,
    ) -> None:
        self.directory = Path(directory)
        self.variables = variables
        self._every_chunk = every_chunk
        self._began = self._written = time.monotonic()
        self._taken: tuple[Position, list[PyTree], list[list[np.ndarray]]] = Position(), start, []
        self._flushed = Position()
        self.files: list[dict[str, Any]] = []
        if (self.directory / "manifest.json").exists():
            check_manifest(self.directory, fingerprint)
            check_start(self.directory / "start.npz", start)
            self._restore(start)
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        strangers = sorted({path.name for path in self.directory.iterdir()} - set(_OURS))
        if strangers:
            raise CheckpointError(
                f"{directory} is no checkpoint, and not empty ({', '.join(strangers[:3])}): give a "
                "directory that is empty or not there yet."
            )
        write_file(STATE, self.directory / "start.npz", _named(start), {})
        write_manifest(self.directory, fingerprint, variables)

    # -- the sink of a run ---------------------------------------------------------------------

    def add(
        self, fields: dict[str, PyTree] | None, position: Position, states: list[PyTree]
    ) -> None:
        """Take a chunk; leaves have the axes (chain, draw, ...)."""
        pending = self._taken[2]
        if fields is not None:
            # Copies: a view of a few rows would keep the whole buffer of a chunk.
            pending = [*pending, [np.array(leaf) for leaf in jax.tree.leaves(fields)]]
        # One assignment: whatever an interrupt cuts short, draws and states belong together.
        self._taken = position, states, pending
        size = sum(array.nbytes for chunk in pending for array in chunk)
        now = time.monotonic()
        wait = max(_SECONDS_BETWEEN_FILES, _SHARE_BETWEEN_FILES * (now - self._began))
        if self._every_chunk or now - self._written > wait or size > _MAX_PENDING_BYTES:
            self.flush()

    @property
    def position(self) -> Position:
        """How far the run has come; what is not in a file yet counts too."""
        return self._taken[0]

    @property
    def states(self) -> list[PyTree]:
        """Where the chains are."""
        return self._taken[1]

    def flush(self) -> None:
        """Write what is there; the store is then as if the run ended here."""
        position, states, pending = self._taken
        if position == self._flushed:
            return
        files = self.files
        if pending:
            leaves = [np.concatenate(parts, axis=1) for parts in zip(*pending, strict=True)]
            files = [*files, self._write_draws(leaves, position.kept)]
        extra = {"position": list(position), "files": files}
        write_file(STATE, self.directory / "state.npz", _named(states), extra)
        self.files, self._flushed, self._taken = files, position, (position, states, [])
        self._written = time.monotonic()

    def _write_draws(self, leaves: list[np.ndarray], end: int) -> dict[str, Any]:
        count = leaves[0].shape[1]
        path = self.directory / f"draws-{len(self.files):06d}.nc"
        temporary = path.with_name(f".{path.name}.tmp")
        write_chunk(temporary, self.variables, leaves, end - count)
        digest = digest_file(temporary)
        move_into_place(temporary, path)
        return {"name": path.name, "draws": count, "sha256": digest}

    # -- going on ------------------------------------------------------------------------------

    def _restore(self, like: list[PyTree]) -> None:
        path = self.directory / "state.npz"
        if not path.exists():
            return
        leaves, header = _read_state(path)
        self.files, self._flushed = header["files"], Position(*header["position"])
        self._taken = self._flushed, match(STATE, path, leaves, like), []
        check_files(self.directory, self.files)
        known = {entry["name"] for entry in self.files}
        for orphan in self.directory.glob("*draws-*.nc*"):
            if orphan.name not in known:
                orphan.unlink()  # written just before the run was killed; it is drawn again


def _named(states: list[PyTree]) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), x) for path, x in jax.tree.leaves_with_path(states)]


def _read_state(path: Path) -> tuple[list[Any], dict[str, Any]]:
    try:
        return read_file(STATE, path)
    except StateFileError as error:
        raise CheckpointError(f"{error}. Start again in another directory.") from error


def read_progress(directory: Path) -> tuple[Position, list[dict[str, Any]]]:
    """Return where a run is, and its files of draws, which have been looked through."""
    read_manifest(directory)
    if not (directory / "state.npz").exists():
        return Position(), []
    _, header = _read_state(directory / "state.npz")
    check_files(directory, header["files"])
    return Position(*header["position"]), header["files"]


def read_draws(directory: Path, variables: list[Variable]) -> Any:
    """Yield the leaves of each chunk, with the axes (chain, draw, ...)."""
    for entry in read_progress(directory)[1]:
        yield read_chunk(directory / entry["name"], variables)


def check_files(directory: Path, files: list[dict[str, Any]]) -> None:
    """Refuse files of draws that are missing, or are not what was written."""
    for entry in files:
        path = directory / entry["name"]
        if not path.exists():
            raise CheckpointError(
                f"{path} is missing, but the run is past it: start again in another directory."
            )
        if digest_file(path) != entry["sha256"]:
            raise CheckpointError(
                f"{path} is not as it was written: put it back, or start again in another "
                "directory."
            )


def digest_file(path: Path) -> str:
    """Return a hash of the contents of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
