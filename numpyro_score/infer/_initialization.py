"""Where chains start, and what to say when they cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.util import ModelInfo, compute_log_probs, initialize_model, transform_fn
from numpyro.util import is_prng_key

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array, PyTree


def initialize(
    rng_key: Array,
    model: Callable[..., Any],
    init_strategy: Callable[..., Any],
    model_args: tuple,
    model_kwargs: dict[str, Any],
) -> ModelInfo:
    """Run NumPyro's ``initialize_model`` with arguments that stay dynamic.

    :raises RuntimeError: where no finite start was found; names the sites to blame.
    """
    try:
        return initialize_model(
            rng_key,
            model,
            dynamic_args=True,
            init_strategy=init_strategy,
            model_args=model_args,
            model_kwargs=model_kwargs,
        )
    except RuntimeError as error:
        if "initial parameters" not in str(error):
            raise
        key = rng_key if is_prng_key(rng_key) else rng_key[0]
        blame = blame_sites(key, model, init_strategy, model_args, model_kwargs)
        raise RuntimeError(
            "Cannot find valid initial parameters: in 100 tries the log density or its gradient "
            f"was never finite. {blame} Check its support and scale, or start somewhere better "
            "with init_strategy=init_to_value(values=...)."
        ) from error


def blame_sites(
    rng_key: Array,
    model: Callable[..., Any],
    init_strategy: Callable[..., Any],
    model_args: tuple,
    model_kwargs: dict[str, Any],
) -> str:
    """Name the sites whose log density, or else its gradient, is not finite at one start."""
    seeded = handlers.substitute(handlers.seed(model, rng_key), substitute_fn=init_strategy)
    trace = handlers.trace(seeded).get_trace(*model_args, **model_kwargs)
    values = {
        name: site["value"]
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    fixed = handlers.seed(model, rng_key)

    def log_probs(values: dict[str, Array]) -> dict[str, Array]:
        return compute_log_probs(fixed, model_args, model_kwargs, values)[0]

    sites = log_probs(values)
    bad = [name for name, log_prob in sites.items() if not np.isfinite(log_prob)]
    if bad:
        return f"At a typical start the log density of {_sites(bad)} is not finite."
    # One gradient a site: in a joint Jacobian, 0 times the NaN of one site is NaN in all.
    slopes = {name: jax.grad(lambda v, name=name: log_probs(v)[name])(values) for name in sites}
    bad = [name for name, slope in slopes.items() if not _all_finite(slope)]
    return f"At a typical start the gradient of {_sites(bad or sorted(values))} is not finite."


def _sites(names: list[str]) -> str:
    return f"site{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def _all_finite(tree: PyTree) -> bool:
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))


def given_start(init_params: PyTree, info: ModelInfo, model_kwargs: dict[str, Any]) -> PyTree:
    """Return the unconstrained starts that ``MCMC.run`` was given, checked against the model."""
    if GIBBS_SITES_KWARG in model_kwargs:
        # numpyro's Gibbs hands constrained values to blocks that are not its own HMC.
        constrain = {name: biject_to(info.model_trace[name]["fn"].support) for name in init_params}
        init_params = transform_fn(constrain, init_params, invert=True)
    check_init_params(init_params, info.param_info.z)
    return init_params


def check_init_params(init_params: PyTree, prototype: PyTree) -> None:
    """Refuse starts whose sites or shapes are not those of the model.

    :param init_params: as given to ``MCMC.run``.
    :param prototype: valid starts of the same model.
    """
    if not isinstance(prototype, dict):
        return
    if not isinstance(init_params, dict):
        raise TypeError(
            f"init_params must be a dict by site name, got {type(init_params).__name__}; its "
            "values are unconstrained, as for numpyro.infer.HMC."
        )
    missing, unknown = prototype.keys() - init_params.keys(), init_params.keys() - prototype.keys()
    if missing or unknown:
        raise ValueError(
            f"init_params must hold the latent sites {sorted(prototype)}; missing: "
            f"{sorted(missing)}, unknown: {sorted(unknown)}."
        )
    for name, value in init_params.items():
        if jnp.shape(value) != jnp.shape(prototype[name]):
            raise ValueError(
                f"init_params[{name!r}] must have the shape {jnp.shape(prototype[name])} (a start "
                "in unconstrained space, after an axis of chains where there are several), got "
                f"{jnp.shape(value)}."
            )


def check_start(potential_energy: Array, score: Array) -> None:
    """Refuse chains that start where the potential energy or its gradient is not finite."""
    if not (is_concrete(potential_energy) and is_concrete(score)):
        return
    finite = np.isfinite(potential_energy) & np.isfinite(score).all(-1)
    if not finite.all():
        chains = np.flatnonzero(~np.atleast_1d(finite)).tolist()
        raise RuntimeError(
            f"The given init_params have no finite potential energy and gradient in chains "
            f"{chains}; start where the density is positive (values are unconstrained)."
        )
