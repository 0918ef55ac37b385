"""Chunks of draws as NetCDF files with the groups and names that ArviZ knows."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import PyTree

# As az.from_numpyro names them; `lp` is the potential energy with its sign changed.
_STATISTICS = {
    "potential_energy": "lp",
    "adapt_state.step_size": "step_size",
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
}


# A variable of this name would be the coordinate of its own axis.
_AXES = {"chain", "draw"}


class Variable(NamedTuple):
    """A variable of the store.

    - **group**, **name** - where ArviZ finds it.
    - **dtype**, **shape** - of one draw of one chain.
    - **negated** - whether the file holds its negative.
    """

    group: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    negated: bool = False


def check_netcdf() -> None:
    """Refuse to begin where the file could not be written."""
    missing = [name for name in ("h5netcdf", "h5py") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"checkpoint writes NetCDF files, for which {' and '.join(missing)} must be installed: "
            "pip install h5netcdf h5py"
        )


def variables_of(fields: dict[str, PyTree], sample_field: str) -> list[Variable]:
    """Return the variables of the leaves of ``fields``, in their order.

    A name that NetCDF has for something else gets an underscore: ``draw_``.

    :param fields: shapes and dtypes of one draw of one chain.
    :raises TypeError: for numbers that NetCDF cannot hold.
    """
    out: list[Variable] = []
    for path, leaf in jax.tree.leaves_with_path(fields):
        field, rest = path[0].key, path[1:]
        if not jnp.issubdtype(leaf.dtype, np.number) and leaf.dtype != np.bool_:
            raise TypeError(f"checkpoint cannot write {field!r}: NetCDF has no {leaf.dtype}.")
        if np.dtype(leaf.dtype).kind not in "biuf" or leaf.dtype == np.float16:
            raise TypeError(f"checkpoint cannot write {field!r}: NetCDF has no {leaf.dtype}.")
        suffix = jax.tree_util.keystr(rest, simple=True, separator=".")
        if field == sample_field:
            group, name = "posterior", suffix
            if not isinstance(fields[field], dict):
                name = f"Param:{sum(variable.group == group for variable in out)}"
        else:
            group, name = "sample_stats", ".".join(filter(None, (field, suffix)))
        known = _STATISTICS.get(name, name) if group == "sample_stats" else name
        # A slash, as numpyro.handlers.scope puts it, would be a group of its own.
        known = known.replace("/", ".")
        taken = {variable.name for variable in out if variable.group == group}
        while known in taken | _AXES:
            known += "_"
        dtype, shape = np.dtype(leaf.dtype).name, tuple(leaf.shape)
        out.append(Variable(group, known, dtype, shape, known == "lp"))
    return out


def write_chunk(
    path: Path, variables: list[Variable], leaves: list[np.ndarray], first: int
) -> None:
    """Write one file; it is complete in itself, and ArviZ opens it.

    :param leaves: one array ``(chain, draw, ...)`` for each variable.
    :param first: number of the first draw.
    """
    import xarray as xr

    groups: dict[str, dict[str, Any]] = {}
    for variable, leaf in zip(variables, leaves, strict=True):
        dims = ("chain", "draw", *(f"{variable.name}_dim_{i}" for i in range(leaf.ndim - 2)))
        values = -leaf if variable.negated else leaf
        groups.setdefault(variable.group, {})[variable.name] = (dims, values)
    num_chains, count = leaves[0].shape[:2]
    coords = {"chain": np.arange(num_chains), "draw": np.arange(first, first + count)}
    mode: Any = "w"
    for group, data in groups.items():
        dataset = xr.Dataset(data, coords, {"inference_library": "numpyro"})
        dataset.to_netcdf(os.fspath(path), mode, group=group, engine="h5netcdf")
        mode = "a"


def read_group(path: Path, group: str) -> Any:
    """Return one group of a file as a dataset in memory."""
    import xarray as xr

    with xr.open_dataset(os.fspath(path), group=group, engine="h5netcdf") as dataset:
        return dataset.load()


def read_chunk(path: Path, variables: list[Variable]) -> list[np.ndarray]:
    """Return the arrays of a file, ``(chain, draw, ...)``, in the order of ``variables``."""
    groups = {name: read_group(path, name) for name in {v.group for v in variables}}
    out = []
    for variable in variables:
        values = np.asarray(groups[variable.group][variable.name].values, variable.dtype)
        out.append(-values if variable.negated else values)
    return out
