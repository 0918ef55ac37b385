"""Draws of the prior and of replicated data, for those sites that can be drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer import Predictive, init_to_uniform
from numpyro.primitives import Messenger

from numpyro_score._typing import Array
from numpyro_score.infer._dependence import output_labels


class Predicted(NamedTuple):
    """Draws by site, ``(n, *site)``, and why other sites have none."""

    draws: dict[str, np.ndarray]
    left_out: dict[str, str]


def predict(
    key: Array,
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    num_draws: int,
    posterior: dict[str, Any] | None = None,
) -> Predicted:
    """Draw all sites of a model, or those that are not given, by NumPyro's ``Predictive``.

    What was observed is drawn, too, whatever the arguments of the model are. A site whose
    distribution has no sampler is left out, and with it all sites that depend on it.

    :param posterior: draws ``(num_draws, *site)`` to take for the sites that they are of.
    """
    free = _Unconditioned(model)
    posterior = {} if posterior is None else posterior
    example = {name: values[0] for name, values in posterior.items()}
    starts, sites, labels = _dependences(free, args, kwargs, example)
    left_out = {name: why for name, (_, why) in starts.items()}
    for name in sites:
        if labels[name] and name not in left_out:
            left_out[name] = f"depends on {', '.join(map(repr, sorted(labels[name])))}"
    wanted = [name for name in sites if name not in left_out and name not in posterior]
    if not wanted:
        return Predicted({}, left_out)
    held = handlers.substitute(free, data={name: start for name, (start, _) in starts.items()})
    predictive = Predictive(
        held, posterior or None, num_samples=None if posterior else num_draws, return_sites=wanted
    )
    drawn = predictive(key, *args, **kwargs)
    return Predicted({name: np.asarray(drawn[name]) for name in wanted}, left_out)


class _Unconditioned(Messenger):
    """A model of which nothing was observed, but for the terms that are no data."""

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "sample" or not msg["is_observed"]:
            return
        if isinstance(msg["fn"], dist.Unit):  # numpyro.factor
            return
        msg["is_observed"], msg["value"] = False, None


class _WithoutSampler(Messenger):
    """Gives the sites that cannot be drawn a value within their support."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__(fn)
        self.starts: dict[str, tuple[Array, str]] = {}

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "sample" or msg["value"] is not None or msg["is_observed"]:
            return
        fn = msg["fn"]
        try:
            jax.eval_shape(lambda key: fn.sample(key), jax.random.key(0))
        except NotImplementedError:
            key = jax.random.key(0)
            value = init_to_uniform(msg | {"kwargs": msg["kwargs"] | {"rng_key": key}})
            why = f"its distribution, {_name(fn)}, has no sampler"
            self.starts[msg["name"]] = value, why
            msg["value"] = value


def _name(fn: Any) -> str:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return type(fn).__name__


def _dependences(
    model: Callable[..., Any], args: tuple, kwargs: dict[str, Any], given: dict[str, Array]
) -> tuple[dict[str, tuple[Array, str]], list[str], dict[str, frozenset[str]]]:
    """Return starts of what cannot be drawn, all sites, and which of the former each depends on."""
    # A loop of the model takes its own steps of them, which arrays of NumPy do not allow.
    known = handlers.substitute(model, data=jax.tree.map(jnp.asarray, given))
    looked = _WithoutSampler(known)
    handlers.trace(handlers.seed(looked, 0)).get_trace(*args, **kwargs)
    starts = looked.starts
    names: list[str] = []

    def values(held: dict[str, Array]) -> list[Array]:
        fixed = handlers.seed(handlers.substitute(known, data=held), 0)
        trace = handlers.trace(fixed).get_trace(*args, **kwargs)
        sites = {
            name: site["value"]
            for name, site in trace.items()
            if site["type"] == "deterministic"
            or (site["type"] == "sample" and not site["is_observed"])
        }
        names[:] = sites
        return [jnp.asarray(value) for value in sites.values()]

    held = {name: start for name, (start, _) in starts.items()}
    jaxpr = jax.make_jaxpr(values)(held)
    labels = output_labels(jaxpr, [frozenset([name]) for name in sorted(held)])
    return starts, list(names), dict(zip(names, labels, strict=True))
