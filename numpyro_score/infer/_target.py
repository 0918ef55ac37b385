"""What a kernel samples, a NumPyro model or a bare potential, behind one face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.flatten_util import ravel_pytree
from numpyro.distributions.transforms import biject_to
from numpyro.infer.util import transform_fn
from numpyro.util import identity

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._initialization import given_start, initialize
from numpyro_score.infer.model_checks import OnDependence, check_structure, refuse_subsampling


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
    info = initialize(rng_key, model, init_strategy, model_args, model_kwargs)
    z = info.param_info.z
    if init_params is not None:
        z = given_start(init_params, info, model_kwargs)
    transforms = _static_transforms(info.model_trace)
    postprocess_fn = _of_arguments(info.postprocess_fn)

    def constrain(args: tuple, kwargs: dict[str, Any] | None) -> Callable[[PyTree], PyTree]:
        return lambda z: transform_fn(transforms, z)

    constrain_fn = postprocess_fn if transforms is None else constrain
    return Target(_of_arguments(info.potential_fn), postprocess_fn, constrain_fn), z


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
    """Return the bijections of the latent sites, or None where one depends on other values."""
    supports = {
        name: site["fn"].support
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(supports)):
        return None
    return {name: biject_to(support) for name, support in supports.items()}


def flat_value_and_grad(potential_fn: Callable[[PyTree], Array], z: PyTree) -> tuple[Array, Array]:
    """Return the potential energy at ``z``, and its gradient as one vector ``(d,)``."""
    value, gradient = jax.value_and_grad(potential_fn)(z)
    return value, ravel_pytree(gradient)[0]
