"""The groups ``prior``, ``prior_predictive`` and ``posterior_predictive`` of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.diagnostics._groups import Names, add_group, dataset, say_left_out
from numpyro_score.diagnostics._predictive import predict
from numpyro_score.infer.model_checks import prototype_trace


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
        drawn: Mapping[str, Any]
        if isinstance(prior, Mapping):
            drawn = prior
        else:
            assert key is not None, "checked above"
            drawn, left_out = predict(key, model, args, kwargs, prior)
        chains = {name: _one_chain(name, values) for name, values in drawn.items()}
        observed = [name for name in chains if name not in samples]
        groups = {
            "prior": {name: chains[name] for name in chains if name not in observed},
            "prior_predictive": {name: chains[name] for name in observed},
        }
        for group, values in groups.items():
            _add(data, group, dataset(values, names))
        say_left_out(data, "prior", left_out)
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
    assert key is not None, "checked above"
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
    say_left_out(data, "posterior_predictive", left_out)


def _add(data: Any, name: str, group: Any) -> None:
    if group.data_vars:
        add_group(data, name, group)


def _latent(
    model: Callable[..., Any], args: tuple, kwargs: dict[str, Any], draws: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    trace = prototype_trace(model, args, kwargs)
    sampled = [name for name, site in trace.items() if site["type"] == "sample"]
    return {name: draws[name] for name in sampled if name in draws}


def _one_chain(name: str, values: Any) -> np.ndarray:
    if np.ndim(values) == 0:
        raise ValueError(f"prior[{name!r}] must have the shape (n, *site), got ().")
    return np.asarray(values)[None]


def _by_chain(name: str, values: np.ndarray, num_chains: int, num_draws: int) -> np.ndarray:
    if values.shape[:2] == (num_chains, num_draws):
        return values
    if values.shape[:1] == (num_chains * num_draws,):
        return values.reshape(num_chains, num_draws, *values.shape[1:])
    raise ValueError(
        f"posterior_predictive[{name!r}] must have the shape ({num_chains * num_draws}, *site) or "
        f"({num_chains}, {num_draws}, *site), got {values.shape}."
    )
