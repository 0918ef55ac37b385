"""Truths and data from the joint density of a model, for simulation-based calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from numpyro_score._typing import Array, PyTree
from numpyro_score.distributions import DensityDistribution, LearnedDistribution
from numpyro_score.infer.model_checks import prototype_trace

#: Draws ``(num_replications, *shape)`` of a site, or a function of a key that returns one.
Prior = Mapping[str, Array | Callable[[Array], Array]]


class Call(NamedTuple):
    """A model, and what it is called with.

    - **model**, **args**, **kwargs** - without data.
    - **observed** - names of the sites that are data.
    """

    model: Callable[..., Any]
    args: tuple
    kwargs: dict[str, Any]
    observed: tuple[str, ...]

    def given(self, data: dict[str, Array]) -> None:
        """Run the model on data; a model itself."""
        handlers.condition(self.model, data)(*self.args, **self.kwargs)


class Sites(NamedTuple):
    """What a model has.

    - **latent**, **deterministic** - names of sites.
    - **shapes** - and dtypes of all sample sites.
    - **by_chain** - sites that draw themselves, but not exactly.
    """

    latent: tuple[str, ...]
    deterministic: tuple[str, ...]
    shapes: dict[str, jax.ShapeDtypeStruct]
    by_chain: tuple[str, ...]


def find_sites(call: Call, given: Prior) -> Sites:
    """Return the sites of the model, after a look at what is asked of it.

    :raises ValueError: a site that is not there, one that is observed already, a factor.
    """
    trace = prototype_trace(call.model, call.args, call.kwargs)
    samples = {name: site for name, site in trace.items() if site["type"] == "sample"}
    for name in call.observed:
        if name not in samples:
            raise ValueError(
                f"observed names the site {name!r}, which the model does not have; its sample "
                f"sites are {sorted(samples)}."
            )
    fixed = [name for name, site in samples.items() if site["is_observed"]]
    if fixed:
        raise ValueError(
            f"the sites {fixed} have values already where the model is called without data, so "
            "that their density (data, or a factor) is not that of draws from the prior: pass None "
            "for data, name their sites in observed, and put a factor into a distribution."
        )
    latent = tuple(name for name in samples if name not in call.observed)
    unknown = sorted(set(given) - set(latent))
    if unknown:
        raise ValueError(f"prior has draws of {unknown}; the latent sites are {sorted(latent)}.")
    return Sites(
        latent,
        tuple(name for name, site in trace.items() if site["type"] == "deterministic"),
        {
            name: jax.ShapeDtypeStruct(site["value"].shape, site["value"].dtype)
            for name, site in samples.items()
        },
        tuple(name for name in samples if name not in given and _by_chain(samples[name]["fn"])),
    )


def _by_chain(fn: Any) -> bool:
    while hasattr(fn, "base_dist") and not isinstance(fn, LearnedDistribution):
        fn = fn.base_dist
    return isinstance(fn, LearnedDistribution) and not isinstance(fn, DensityDistribution)


def given_draws(key: Array, given: Prior, sites: Sites, num: int) -> dict[str, Array]:
    """Return ``num`` draws of the sites that the user draws.

    :raises ValueError: draws of another number or shape, or not finite.
    """
    draws = {}
    for index, (name, prior) in enumerate(sorted(given.items())):
        keys = jax.random.split(jax.random.fold_in(key, index), num)
        values = jnp.asarray(jax.vmap(prior)(keys) if callable(prior) else prior, float)
        shape = (num, *sites.shapes[name].shape)
        if values.shape != shape:
            raise ValueError(
                f"prior[{name!r}] must give draws of the shape {shape}, one for each replication, "
                f"got {values.shape}."
            )
        draws[name] = values
    return draws


def draw_joint(key: Array, call: Call, given: dict[str, Array], sites: Sites) -> dict[str, Array]:
    """Return one draw of all sites, by a run of the model.

    :raises ValueError: a site without a sampler, which the user must draw.
    """

    def draw(site: dict[str, Any]) -> Array | None:
        if site["type"] != "sample" or site["value"] is not None:
            return None
        name = site["name"]
        if name in given:
            return given[name]
        try:
            return site["fn"](rng_key=site["kwargs"]["rng_key"])
        except NotImplementedError:
            if name in call.observed:
                raise ValueError(
                    f"observed site {name!r} has a density but no sampler, so that no data can be "
                    "drawn: give its distribution a sampler."
                ) from None
            raise ValueError(
                f"site {name!r} has a density but no sampler, so that no truth can be drawn: give "
                f"draws of its prior, of shape (num_replications, *{sites.shapes[name].shape}), as "
                f"prior={{{name!r}: draws}}, or a function of a key that returns one. They must be "
                "exact, or the test is of them."
            ) from None

    seeded = handlers.substitute(handlers.seed(call.model, key), substitute_fn=draw)
    trace = handlers.trace(seeded).get_trace(*call.args, **call.kwargs)
    names = (*sites.latent, *sites.deterministic, *call.observed)
    return {name: jnp.asarray(trace[name]["value"]) for name in names}


def check_joint(values: Mapping[str, PyTree]) -> None:
    """Refuse truths and data that are not finite."""
    for name, value in values.items():
        bad = np.sum(~np.isfinite(np.asarray(value)).reshape(len(value), -1).all(1))
        if bad:
            raise FloatingPointError(
                f"site {name!r} is not finite in {bad} of {len(value)} draws of the prior: look "
                "for a prior so wide that the model overflows."
            )
