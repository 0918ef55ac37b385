"""Draws of a long run on disk: read them while it runs, go on where it was killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax

from numpyro_score._array_file import CheckpointError
from numpyro_score._typing import PyTree
from numpyro_score.infer._draws import Draws, Position
from numpyro_score.infer._manifest import read_manifest
from numpyro_score.infer._netcdf import Variable, read_group
from numpyro_score.infer._store import read_draws, read_progress
from numpyro_score.infer._upstream import Plan

__all__ = ["CheckpointError", "open_checkpoint"]


def open_checkpoint(directory: str | os.PathLike[str]) -> Any:
    """Return what a run with ``MCMC(..., checkpoint=directory)`` has written so far, for ArviZ.

    Each ``draws-*.nc`` in the directory is a NetCDF file that ``az.from_netcdf`` opens by itself;
    this puts them together. It can be called while the run is under way.

    :param directory: as given to :class:`MCMC`.
    :return: ``InferenceData`` (ArviZ 0.23) or ``DataTree`` (ArviZ 1) with the groups ``posterior``
        and ``sample_stats``. Attributes say how far the run is: ``steps`` of ``num_steps``, and
        ``complete``; which ``kernel`` it has; and why its draws are ``biased``, where they are.
    :raises CheckpointError: where there is no checkpoint or no draw yet, and for files that are
        damaged.

    >>> import tempfile, jax, numpyro, numpyro.distributions as dist
    >>> from numpyro_score.infer import MALA, MCMC, open_checkpoint
    >>> def model():
    ...     numpyro.sample("x", dist.Normal(0.0, 1.0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mcmc = MCMC(
    ...         MALA(model), num_warmup=50, num_samples=30, progress_bar=False, checkpoint=folder
    ...     )
    ...     mcmc.run(jax.random.key(0))
    ...     open_checkpoint(folder)["posterior"]["x"].shape
    (1, 30)
    """
    import arviz as az
    import xarray as xr

    path = Path(directory)
    manifest = read_manifest(path)
    run = manifest["run"]
    position, files = read_progress(path)
    num_steps = run["num_steps"]
    if not files:
        raise CheckpointError(
            f"{path} holds no draws yet: the run is at step {position.steps} of {num_steps}."
        )
    said = {
        "steps": position.steps,
        "num_steps": num_steps,
        "complete": int(position.steps == num_steps),
        "kernel": run["kernel"]["class"],
        **({"biased": run["bias"]} if run["bias"] else {}),
    }
    groups = {}
    for group in dict.fromkeys(variable["group"] for variable in manifest["variables"]):
        parts = [read_group(path / entry["name"], group) for entry in files]
        groups[group] = xr.concat(parts, dim="draw", combine_attrs="override")
        groups[group].attrs.update(said)
    # ArviZ 1 answers to the old name as well, with a warning.
    if "InferenceData" in vars(az):
        return az.InferenceData(**groups)
    return xr.DataTree.from_dict(groups)


def load_draws(
    directory: Path, variables: list[Variable], outputs: PyTree, plan: Plan, like: PyTree
) -> dict[str, PyTree] | None:
    """Return the draws of a store as :class:`MCMC` keeps them, or None where there are none.

    :param outputs: fields by name, as ``Programs.outputs`` gives them.
    :param like: fields of a state, which tell random keys from numbers.
    """
    structure = jax.tree.structure(outputs)
    draws = Draws(plan.num_kept, [])
    for leaves in read_draws(directory, variables):
        kept = draws.position.kept + leaves[0].shape[1]
        draws.add(jax.tree.unflatten(structure, leaves), Position(kept=kept), [])
    return draws.take(like)
