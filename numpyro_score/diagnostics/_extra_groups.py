"""What :func:`to_arviz` adds to the groups that ArviZ makes of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from numpyro_score._typing import Array
from numpyro_score.diagnostics._groups import (
    Names,
    add_group,
    dataset,
    get_group,
    has_group,
    replace_group,
    say_left_out,
)
from numpyro_score.diagnostics._scores import NoScore, score_draws
from numpyro_score.distributions._parts import unnormalized_parts
from numpyro_score.infer import CheckpointError, open_checkpoint
from numpyro_score.infer.model_checks import prototype_trace

# -- log likelihood ------------------------------------------------------------------------------


def unnormalized_sites(
    model: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> dict[str, str]:
    """Return the observed sites whose log likelihood means nothing, and why."""
    return {
        name: "log p(y | θ) lacks its normalizer, so that LOO and WAIC would mean nothing; "
        "distribution.with_log_normalizer(...) gives it"
        for name, site in prototype_trace(model, args, kwargs).items()
        if site["type"] == "sample" and site["is_observed"] and unnormalized_parts(site["fn"])
    }


def drop_log_likelihood(data: Any, left_out: Mapping[str, str]) -> None:
    """Leave out the log likelihood of these sites, and say why where it is looked for."""
    if not left_out:
        return
    if has_group(data, "log_likelihood"):
        kept = get_group(data, "log_likelihood")
        kept = kept.drop_vars([name for name in left_out if name in kept])
        replace_group(data, "log_likelihood", kept if kept.data_vars else None)
    say_left_out(data, "log_likelihood", left_out)


# -- scores --------------------------------------------------------------------------------------


def add_scores(data: Any, mcmc: Any) -> None:
    """Add what the score says of each draw to ``sample_stats``, or why it says nothing."""
    try:
        scored = score_draws(mcmc)
    except NoScore as error:
        data["posterior"].attrs["scores_left_out"] = str(error)
        return
    z, scores = (np.asarray(x, np.float64) for x in scored)
    centred = z - z.mean((0, 1))
    statistics = {
        "score_norm": np.linalg.norm(scores, axis=-1),
        "virial": -np.sum(centred * scores, -1) / z.shape[-1],
    }
    added = dataset(statistics, Names({}, {}))
    if not has_group(data, "sample_stats"):  # a kernel of which nothing is collected
        add_group(data, "sample_stats", added)
        return
    group = get_group(data, "sample_stats")
    for name in statistics:
        group[name] = (("chain", "draw"), added[name].values)
    replace_group(data, "sample_stats", group)


# -- warm-up -------------------------------------------------------------------------------------


def add_warmup(data: Any, mcmc: Any, names: Names, warmup: Mapping[str, Array] | None) -> None:
    """Add the draws of the warm-up: those given, or those of a checkpoint."""
    if warmup is not None:
        for name, values in warmup.items():
            if np.ndim(values) < 2 or len(values) != mcmc.num_chains:
                raise ValueError(
                    f"warmup[{name!r}] must have the axes (chain, draw, ...) with "
                    f"{mcmc.num_chains} chains, got the shape {np.shape(values)}: take "
                    "mcmc.get_samples(group_by_chain=True)."
                )
        add_group(data, "warmup_posterior", dataset(warmup, names))
        return
    checkpoint = getattr(mcmc, "checkpoint", None)
    directory = None if checkpoint is None else os.path.join(checkpoint, "warmup")
    if directory is None or not os.path.isdir(directory):
        return
    try:
        kept = open_checkpoint(directory)
    except CheckpointError:  # none were kept
        return
    posterior = get_group(kept, "posterior")
    draws = {str(name): posterior[name].values for name in posterior.data_vars}
    add_group(data, "warmup_posterior", dataset(draws, names))
    if has_group(kept, "sample_stats"):
        add_group(data, "warmup_sample_stats", get_group(kept, "sample_stats"))
