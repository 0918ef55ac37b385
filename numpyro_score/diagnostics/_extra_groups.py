"""What :func:`to_arviz` adds to the groups that ArviZ makes of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.diagnostics._groups import (
    Names,
    add_group,
    dataset,
    get_group,
    has_group,
    replace_group,
)
from numpyro_score.diagnostics._predictive import predict
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
    _say(data, "log_likelihood", left_out)


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
    group = get_group(data, "sample_stats")
    added = dataset(statistics, Names({}, {}))
    for name in statistics:
        group[name] = (("chain", "draw"), added[name].values)
    replace_group(data, "sample_stats", group)


# -- prior and posterior predictive --------------------------------------------------------------


def add_predictions(
    data: Any,
    mcmc: Any,
    samples: Mapping[str, np.ndarray],
    names: Names,
    prior: int | Mapping[str, Array] | None,
    posterior_predictive: int | Mapping[str, Array] | None,
    key: Array | None,
) -> None:
    """Add the groups ``prior``, ``prior_predictive`` and ``posterior_predictive``."""
    model, args, kwargs = mcmc.sampler.model, mcmc._args, mcmc._kwargs
    for value, name in ((prior, "prior"), (posterior_predictive, "posterior_predictive")):
        if value is None or isinstance(value, Mapping):
            continue
        check_int(value, name, 1)
        if key is None or model is None:
            lacks = "a model" if model is None else "key=, a random key"
            raise ValueError(f"{name}={value} asks for draws to be made, which needs {lacks}.")
    left_out: dict[str, str] = {}
    if prior is not None:
        drawn: Mapping[str, Array] = {}
        if isinstance(prior, Mapping):
            drawn = prior
        else:
            drawn, left_out = predict(key, model, args, kwargs, prior)
        chains = {name: _one_chain(name, values) for name, values in drawn.items()}
        observed = [name for name in chains if name not in samples]
        groups = {
            "prior": {name: chains[name] for name in chains if name not in observed},
            "prior_predictive": {name: chains[name] for name in observed},
        }
        for group, values in groups.items():
            _add(data, group, dataset(values, names))
        _say(data, "prior", left_out)
    if posterior_predictive is None:
        return
    num_chains, num_draws = next(iter(samples.values())).shape[:2]
    if isinstance(posterior_predictive, Mapping):
        replicated = {
            name: _by_chain(name, np.asarray(values), num_chains, num_draws)
            for name, values in posterior_predictive.items()
        }
        _add(data, "posterior_predictive", dataset(replicated, names))
        return
    taken = np.unique(np.linspace(0, num_draws - 1, posterior_predictive).astype(int))
    thinned = {name: values[:, taken] for name, values in samples.items()}
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in thinned.items()}
    drawn, left_out = predict(key, model, args, kwargs, 0, _latent(model, args, kwargs, flat))
    replicated = {
        name: values.reshape(num_chains, len(taken), *values.shape[1:])
        for name, values in drawn.items()
        if name not in samples
    }
    group = dataset(replicated, names)
    if replicated:
        group = group.assign_coords(draw=taken)
    _add(data, "posterior_predictive", group)
    _say(data, "posterior_predictive", left_out)


def _add(data: Any, name: str, group: Any) -> None:
    if group.data_vars:
        add_group(data, name, group)


def _say(data: Any, group: str, left_out: Mapping[str, str]) -> None:
    """Say at the posterior, which is always there, why sites are missing from a group."""
    if left_out:
        data["posterior"].attrs[f"{group}_left_out"] = _join(left_out)


def _latent(
    model: Callable[..., Any], args: tuple, kwargs: dict[str, Any], draws: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    trace = prototype_trace(model, args, kwargs)
    sampled = [name for name, site in trace.items() if site["type"] == "sample"]
    return {name: draws[name] for name in sampled if name in draws}


def _one_chain(name: str, values: Array) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim == 0:
        raise ValueError(f"prior[{name!r}] must have the shape (n, *site), got ().")
    return values[None]


def _by_chain(name: str, values: np.ndarray, num_chains: int, num_draws: int) -> np.ndarray:
    if values.shape[:2] == (num_chains, num_draws):
        return values
    if values.shape[:1] == (num_chains * num_draws,):
        return values.reshape(num_chains, num_draws, *values.shape[1:])
    raise ValueError(
        f"posterior_predictive[{name!r}] must have the shape ({num_chains * num_draws}, *site) or "
        f"({num_chains}, {num_draws}, *site), got {values.shape}."
    )


def _join(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in reasons.items())


# -- warm-up -------------------------------------------------------------------------------------


def add_warmup(
    data: Any, mcmc: Any, names: Names, warmup: Mapping[str, Array] | None
) -> None:
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
