"""Which rows of its data a model sees: the plates that subsample, and the rows they take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.primitives import Messenger

from numpyro_score._typing import Array
from numpyro_score.infer.model_checks import ModelError

#: By the name of each plate that subsamples: how many rows there are, and how many it takes.
PlateSizes: TypeAlias = dict[str, tuple[int, int]]
#: By the name of each plate that subsamples: the indices of the rows it takes.
Rows: TypeAlias = dict[str, Array]


class ChooseRows(Messenger):
    """Let the plates that subsample take these rows, or their first ones where none are given."""

    def __init__(self, rows: Rows | None = None) -> None:
        super().__init__(fn=None)
        self._rows = {} if rows is None else rows

    def process_message(self, msg: dict[str, Any]) -> None:
        """Choose before NumPyro draws; as many rows as are given, which may be fewer."""
        if msg["type"] != "plate":
            return
        name, (size, subsample_size) = msg["name"], msg["args"]
        if subsample_size in (None, size):
            return
        if not 0 < subsample_size < size:
            raise ModelError(
                f"Plate {name!r} cannot take {subsample_size} rows out of {size}: subsample_size "
                "must lie between 1 and the size of the plate."
            )
        rows = self._rows.get(name)
        msg["value"] = jnp.arange(subsample_size) if rows is None else rows
        msg["args"] = (size, len(msg["value"]))


def subsampled_plates(trace: dict[str, Any]) -> PlateSizes:
    """Return the sizes of the plates of a trace that take some of their rows."""
    return {
        name: site["args"]
        for name, site in trace.items()
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0])
    }


def draw_rows(rng_key: Array, sizes: PlateSizes) -> Rows:
    """Draw rows for each plate, each subset of the right size as likely as any other."""
    keys = jax.random.split(rng_key, len(sizes))
    return {
        name: draw_subset(key, *sizes[name]) for name, key in zip(sorted(sizes), keys, strict=True)
    }


_FULL_PASS = ContextVar("_FULL_PASS", default=False)


@contextmanager
def full_pass() -> Iterator[None]:
    """Let a model that is traced here know that it is to see all data, block by block."""
    token = _FULL_PASS.set(True)
    try:
        yield
    finally:
        _FULL_PASS.reset(token)


def in_full_pass() -> bool:
    """Whether the model is being traced for a pass over all data."""
    return _FULL_PASS.get()


class Blocks(NamedTuple):
    """Disjoint minibatches of one size, of consecutive rows.

    - **starts** - the first row of each, by plate, ``(blocks,)``.
    - **lengths** - how many rows each of them takes, by plate.
    - **weight** - share of the data that each of them holds.
    """

    starts: dict[str, np.ndarray]
    lengths: dict[str, int]
    weight: float

    def rows(self, starts: Rows) -> Rows:
        """Return the rows of the minibatch that begins there."""
        return {name: starts[name] + jnp.arange(n) for name, n in self.lengths.items()}


def partition(sizes: PlateSizes) -> list[Blocks]:
    """Split the data into minibatches, so that no pass over all of it holds more than one.

    >>> [(b.starts["n"].tolist(), b.lengths["n"], b.weight) for b in partition({"n": (5, 2)})]
    [([0, 2], 2, 0.4), ([4], 1, 0.2)]
    """
    out = []
    for choice in itertools.product(*(_partition_plate(*size) for size in sizes.values())):
        grid = np.meshgrid(*(starts for starts, _ in choice), indexing="ij")
        lengths = {name: length for name, (_, length) in zip(sizes, choice, strict=True)}
        shares = [lengths[name] / size for name, (size, _) in sizes.items()]
        starts = {name: axis.ravel() for name, axis in zip(sizes, grid, strict=True)}
        out.append(Blocks(starts, lengths, math.prod(shares)))
    return out


def _partition_plate(size: int, subsample_size: int) -> list[tuple[np.ndarray, int]]:
    """Return starts and length of the blocks of full size, and of what is left over."""
    last = size - size % subsample_size
    blocks = [(np.arange(0, last, subsample_size), subsample_size)]
    return blocks if last == size else [*blocks, (np.array([last]), size - last)]


def draw_subset(rng_key: Array, size: int, subsample_size: int) -> Array:
    """Draw distinct integers below ``size``: a uniform subset, in no particular order.

    On a CPU by the algorithm of R. Floyd (Bentley & Floyd, 1987, "A sample of brilliance"), whose
    cost does not grow with ``size``: 24 µs for 100 of 1,000 or of 10⁶, where the draw of NumPyro's
    own plate takes 600 µs for 100 of 1,000.

    >>> import jax
    >>> sorted(draw_subset(jax.random.key(0), 3, 3).tolist())
    [0, 1, 2]
    """
    if jax.default_backend() != "cpu":  # a loop of tiny steps is slow there, and a sort is fast
        return jax.random.choice(rng_key, size, (subsample_size,), replace=False)
    last = jnp.arange(size - subsample_size, size)
    guesses = jax.random.randint(rng_key, (subsample_size,), 0, last + 1)

    def put(chosen: Array, x: tuple[Array, Array, Array]) -> tuple[Array, None]:
        k, last, guess = x
        taken = (chosen == guess).any()
        return chosen.at[k].set(jnp.where(taken, last, guess)), None

    steps = (jnp.arange(subsample_size), last, guesses)
    return jax.lax.scan(put, jnp.full(subsample_size, -1), steps)[0]


def check_plates(trace: dict[str, Any], kernel: str) -> None:
    """Refuse a model in which a fresh minibatch at every step would mean nothing, or go wrong.

    :param kernel: the kernel's name, for the message.
    """
    sizes = subsampled_plates(trace)
    if not sizes:
        raise ModelError(
            f"{kernel} without a subsampled plate: it takes a fresh minibatch at every step from "
            'numpyro.plate("rows", len(y), subsample_size=100), and this model has no plate whose '
            "subsample_size is below its size. Subsample the data, or sample the model with "
            "MALA, which uses all of them."
        )
    for name, site in trace.items():
        frames = [frame for frame in site.get("cond_indep_stack", ()) if frame.name in sizes]
        if not frames or site["type"] not in ("sample", "deterministic"):
            continue
        plate = frames[0].name
        if site["type"] == "deterministic":
            raise ModelError(
                f"The deterministic site {name!r} lies in the subsampled plate {plate!r}: its rows "
                "are others at every step, so its draws would mean nothing. Move it out of the "
                "plate, or compute it from the draws."
            )
        if not site["is_observed"]:
            raise ModelError(
                f"The latent site {name!r} lies in the subsampled plate {plate!r}: each value "
                "belongs to one row, but the rows change at every step. Marginalize it, move it "
                "out of the plate, or remove subsample_size and sample the model with MALA."
            )
        for frame in frames:
            _check_observation(site, frame.dim, sizes[frame.name][1], plate)


def _check_observation(site: dict[str, Any], dim: int, rows: int, plate: str) -> None:
    """Refuse data that were not subsampled; with one row, they would broadcast in silence."""
    shape = site["value"].shape
    shape = shape[: len(shape) - len(site["fn"].event_shape)]
    if len(shape) >= -dim and shape[dim] not in (1, rows):
        raise ModelError(
            f"The observed site {site['name']!r} has {shape[dim]} rows in the plate {plate!r}, "
            f"which takes {rows} at a time: give it obs=y[rows] of `with numpyro.plate(...) as "
            "rows`, or obs=numpyro.subsample(y, event_dim=...)."
        )
