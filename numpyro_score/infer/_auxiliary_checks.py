"""Models whose unknown normalizers auxiliary data cannot cancel, and samplers that do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import is_concrete
from numpyro_score.distributions._parts import unnormalized_parts
from numpyro_score.infer._auxiliary import Sampler
from numpyro_score.infer.model_checks import (
    DoublyIntractableError,
    ModelError,
    name_dependence,
)


def check_dependence(
    site: str, field: str, labels: frozenset[str], trace: dict[str, Any], elsewhere: frozenset[str]
) -> None:
    """Refuse a normalizer that depends on what is inferred in a way that data cannot mend.

    :param site: name of a site whose distribution is unnormalized.
    :param field: what of it depends on other sites, as :func:`dependences` names it.
    :param labels: the latent sites and parameters that it depends on.
    :param elsewhere: latent sites that other blocks of ``Gibbs`` sample.
    """
    what = f"Site {site!r} has an unnormalized density and {name_dependence(field, labels, trace)}"
    if not trace[site]["is_observed"]:
        raise DoublyIntractableError(
            f"{what}; but {site!r} is latent. Exchange draws observed data anew, and needs to know "
            "their observed values. Give this site log_normalizer= as a function of the same "
            "values, make them constants, or use a normalized distribution."
        )
    params = sorted(name for name in labels if trace[name]["type"] == "param")
    if params:
        raise DoublyIntractableError(
            f"{what}; but {params} are parameters, which MCMC does not sample, and so nothing is "
            "known of their density. Sample them (numpyro.sample), or make them constants."
        )
    if labels & elsewhere:
        raise DoublyIntractableError(
            f"{what}; but {sorted(labels & elsewhere)} belong to another block of Gibbs, whose "
            "kernel does not know of Z. Let the block of Exchange sample all of "
            f"{sorted(labels)}."
        )
    if field == "context":
        raise DoublyIntractableError(
            f"{what}: which data count, or how much, changes with what is inferred, and auxiliary "
            "data do not follow. Make mask and scale constants."
        )
    if field == "_support":
        raise DoublyIntractableError(
            f"{what}: an energy does not know where it ends, so that data outside would count. "
            "Give a support that holds for all values, and an energy that is inf elsewhere."
        )


def check_sites(
    trace: dict[str, Any], sites: tuple[str, ...], samplers: Mapping[str, Sampler]
) -> None:
    """Refuse data that cannot be drawn as they were observed, and samplers of other sites.

    :param trace: that of :func:`prototype_trace`.
    """
    for name in sites:
        _check_scale(trace[name])
        _check_shape(trace[name])
    for name in samplers:
        if name not in sites:
            raise ValueError(
                f"samplers names {name!r}, but {_why_not(trace, name)}. The sites whose normalizer "
                f"depends on a latent site are {list(sites)}."
            )
    missing = [name for name in sites if name not in samplers]
    if samplers and missing:
        raise ModelError(
            f"samplers must name every site whose normalizer depends on a latent site: {missing} "
            "are missing. Without an exact sampler for one of them, pass "
            f"samplers[{missing[0]!r}] = lambda rng_key, distribution: distribution.sample(rng_key)"
            ", and mind that the posterior is then approximate."
        )


def _check_scale(site: dict[str, Any]) -> None:
    scale = site["scale"]
    if scale is None or (is_concrete(scale) and np.all(np.asarray(scale) == 1)):
        return
    raise ModelError(
        f"Site {site['name']!r} is scaled (handlers.scale), and its normalizer, which depends on a "
        "latent site, would be scaled with it: data drawn from its distribution are not those of "
        "a scaled density. Remove the scale, or give log_normalizer= to the distribution."
    )


def _check_shape(site: dict[str, Any]) -> None:
    fn, shape = site["fn"], site["value"].shape
    lead = shape[: len(shape) - fn.event_dim]
    try:
        fits = jnp.broadcast_shapes(lead, fn.batch_shape) == lead
    except ValueError:
        fits = False
    if not fits:
        raise ModelError(
            f"The observed value of site {site['name']!r} has the shape {shape}, but its "
            f"distribution has the shape {fn.shape()}: one value would count as several. Give it "
            "a value for each row."
        )


def _why_not(trace: dict[str, Any], name: str) -> str:
    site = trace.get(name)
    if site is None or site["type"] != "sample":
        return "the model has no sample site of this name"
    if not site["is_observed"]:
        return "it is latent, and only data are drawn"
    if not unnormalized_parts(site["fn"]):
        return "its distribution is normalized, so that nothing is to be cancelled"
    return "its normalizer is a constant, so that nothing is to be cancelled"
