"""Groups of ArviZ's container, for both of its generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Names(NamedTuple):
    """Names of axes by site, and coordinates by axis."""

    dims: Mapping[str, Sequence[str]]
    coords: Mapping[str, Sequence[Any]]


def dataset(draws: Mapping[str, Any], names: Names) -> Any:
    """Return a data set of draws with the axes (chain, draw, …)."""
    import arviz as az

    arrays = {name: np.asarray(values) for name, values in draws.items()}
    return az.dict_to_dataset(
        arrays,
        dims={name: list(dims) for name, dims in names.dims.items() if name in arrays},
        coords=dict(names.coords),
    )


def add_group(data: Any, name: str, group: Any) -> None:
    """Add a data set to an ``InferenceData``, or a ``DataTree``."""
    if hasattr(data, "add_groups"):
        data.add_groups({name: group})
        return
    import xarray as xr

    data[name] = xr.DataTree(group)


def has_group(data: Any, name: str) -> bool:
    """Return whether there is a group of this name."""
    names = data.groups() if callable(data.groups) else data.children
    return name in names


def replace_group(data: Any, name: str, group: Any) -> None:
    """Put another data set in the place of a group, or nothing in that of None."""
    del data[name]
    if group is not None:
        add_group(data, name, group)


def get_group(data: Any, name: str) -> Any:
    """Return the data set of a group."""
    group = data[name]
    return group.to_dataset() if hasattr(group, "to_dataset") else group


def say_left_out(data: Any, group: str, left_out: Mapping[str, str]) -> None:
    """Say at the posterior, which is always there, why sites are missing from a group."""
    if left_out:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        data["posterior"].attrs[f"{group}_left_out"] = reasons
