"""What a kernel samples, a NumPyro model or a bare potential, behind one face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.infer import init_to_sample
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.util import constrain_fn, transform_fn, unconstrain_fn
from numpyro.util import identity

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._dependence import output_labels
from numpyro_score.infer._initialization import check_init_params, given_start, initialize
from numpyro_score.infer.model_checks import (
    ModelError,
    OnDependence,
    check_structure,
    prototype_trace,
    refuse_subsampling,
)


class Target(NamedTuple):
    """Functions of ``(model_args, model_kwargs)``, each of which returns a function of z.

    - **potential_fn** - the potential energy at unconstrained values z.
    - **postprocess_fn** - constrained values and deterministic sites, by a run of the model.
    - **constrain_fn** - constrained values, without a run of the model where that can be.
    """

    potential_fn: Callable[..., Callable[[PyTree], Array]]
    postprocess_fn: Callable[..., Callable[[PyTree], PyTree]]
    constrain_fn: Callable[..., Callable[[PyTree], PyTree]]


def model_target(
    rng_key: Array,
    model: Callable[..., Any],
    init_strategy: Callable[..., Any],
    init_params: PyTree,
    model_args: tuple,
    model_kwargs: dict[str, Any],
    check_plates: Callable[[dict[str, Any]], None] = refuse_subsampling,
    on_dependence: OnDependence | None = None,
) -> tuple[Target, PyTree]:
    """Return the target of a model, and unconstrained starts.

    :param init_params: starts as given to ``MCMC.run``; None for those of ``init_strategy``.
    :param check_plates: refuses a trace whose plates this kernel cannot work with.
    :param on_dependence: what to do with a normalizer that depends on other sites; None to refuse.
    :raises ModelError: for a model that cannot be sampled, see :func:`check_model`.
    """
    check_structure(model, model_args, model_kwargs, check_plates, on_dependence)
    in_gibbs = GIBBS_SITES_KWARG in model_kwargs
    if in_gibbs:
        _refuse_supports_across_blocks(model, model_args, model_kwargs)
    info = initialize(rng_key, model, init_strategy, model_args, model_kwargs)
    transforms = _static_transforms(info.model_trace)
    z = info.param_info.z
    if init_params is not None and transforms is None and in_gibbs:
        # The bijections of these values; the trace has those of others.
        start = unconstrain_fn(model, model_args, model_kwargs, init_params)
        check_init_params(start, z)
        z = start
    elif init_params is not None:
        z = given_start(init_params, info, model_kwargs)

    potential_fn, postprocess_fn = map(_of_arguments, (info.potential_fn, info.postprocess_fn))
    if transforms is None:
        # NumPyro's postprocess_fn takes a support under `to_event` to be what it was at the start.
        return Target(potential_fn, _replay(model, True), _replay(model, False)), z

    def constrain(args: tuple, kwargs: dict[str, Any] | None) -> Callable[[PyTree], PyTree]:
        return lambda z: transform_fn(transforms, z)

    return Target(potential_fn, postprocess_fn, constrain), z


def _replay(model: Callable[..., Any], deterministic: bool) -> Callable[..., Any]:
    """Return the map to constrained values, and deterministic sites, by a run of the model."""
    # Gibbs leaves out the sites of other blocks: any values will do, no support needs them.
    whole = handlers.substitute(handlers.seed(model, 0), substitute_fn=init_to_sample)

    def replay(args: tuple, kwargs: dict[str, Any] | None) -> Callable[[PyTree], PyTree]:
        return lambda z: constrain_fn(whole, args, kwargs or {}, z, deterministic)

    return replay


def potential_target(
    potential_fn: Callable[[PyTree], Array], init_params: PyTree
) -> tuple[Target, PyTree]:
    """Return the target of a kernel that was given ``potential_fn``: no arguments, no sites."""
    if init_params is None:
        raise ValueError(
            "A kernel that is given potential_fn cannot know where to start: pass "
            "init_params to MCMC.run, of the type that potential_fn takes."
        )
    return Target(lambda *_: potential_fn, lambda *_: identity, lambda *_: identity), init_params


def _of_arguments(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda args, kwargs: fn(*args, **(kwargs or {}))


def _static_transforms(trace: dict[str, Any]) -> dict[str, Any] | None:
    """Return the bijections of the latent sites, or None where one holds an array.

    It may be one of the model's arguments, or depend on another site.
    """
    supports = {
        name: site["fn"].support
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(supports)):
        return None
    return {name: biject_to(support) for name, support in supports.items()}


def _refuse_supports_across_blocks(
    model: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> None:
    """Refuse a block of Gibbs with a support that depends on sites of other blocks."""
    trace = prototype_trace(model, args, kwargs)
    if _static_transforms(trace) is not None:
        return
    own = _latent_sites(trace)
    kwargs = {name: value for name, value in kwargs.items() if name != GIBBS_SITES_KWARG}
    latent = _latent_sites(prototype_trace(model, args, kwargs))

    def supports(latent: dict[str, PyTree]) -> dict[str, list[Array]]:
        substituted = handlers.substitute(handlers.seed(model, 0), data=latent)
        trace = handlers.trace(substituted).get_trace(*args, **kwargs)
        return {k: [jnp.asarray(x) for x in jax.tree.leaves(trace[k]["fn"].support)] for k in own}

    jaxpr, shapes = jax.make_jaxpr(supports, return_shape=True)(latent)
    outputs = iter(output_labels(jaxpr, [frozenset([name]) for name in sorted(latent)]))
    needs = {k: frozenset().union(*(next(outputs) for _ in v)) for k, v in sorted(shapes.items())}
    dependent = [name for name, labels in needs.items() if labels - own.keys()]
    if dependent:
        raise ModelError(
            f"The supports of sites {dependent} depend on other sites; Gibbs does not support "
            "value-dependent supports across blocks: put both sites in one block."
        )


def _latent_sites(trace: dict[str, Any]) -> dict[str, PyTree]:
    """Return the values of the latent sites of a trace."""
    return {
        name: site["value"]
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }


def flat_value_and_grad(potential_fn: Callable[[PyTree], Array], z: PyTree) -> tuple[Array, Array]:
    """Return the potential energy at ``z``, and its gradient as one vector ``(d,)``."""
    value, gradient = jax.value_and_grad(potential_fn)(z)
    return value, ravel_pytree(gradient)[0]
