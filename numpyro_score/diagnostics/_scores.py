"""The draws of a run without constraints, and the score of its model there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.util import potential_energy, unconstrain_fn

from numpyro_score._typing import Array, PyTree
from numpyro_score.diagnostics._run import draws_by_site
from numpyro_score.infer import Exchange, ModelError, check_model
from numpyro_score.infer._levels import LevelledModel
from numpyro_score.infer.model_checks import prototype_trace

_BLOCK = 256


class Scored(NamedTuple):
    """Unconstrained draws z and ∇ log p(z), both ``(chains, draws, d)``; z sites by name."""

    draws: np.ndarray
    scores: np.ndarray


class NoScore(Exception):  # noqa: N818
    """Why the score of a run cannot be had."""


def score_draws(mcmc: Any, keep: slice = slice(None)) -> Scored:
    """Return the draws of a run without constraints, and the score of its model there.

    A diffusion site counts by its score at the first time, without its flow.

    :param keep: which draws of each chain.
    :raises NoScore: the model has none that is that of its posterior, says why.
    """
    model = mcmc.sampler.model
    score, z = _of_potential(mcmc) if model is None else _of_model(mcmc, model)
    z = jax.tree.map(lambda x: jnp.asarray(x)[:, keep], z)
    num_chains, num_draws = jax.tree.leaves(z)[0].shape[:2]
    flat = jax.tree.map(lambda x: x.reshape(num_chains * num_draws, *x.shape[2:]), z)
    outcome = jax.jit(partial(jax.lax.map, score, batch_size=_BLOCK))(flat)
    draws, scores = (np.asarray(x).reshape(num_chains, num_draws, -1) for x in outcome)
    return Scored(draws, scores)


def _gradient(potential_fn: Callable[[PyTree], Array], z: PyTree) -> tuple[Array, Array]:
    return ravel_pytree(z)[0], -ravel_pytree(jax.grad(potential_fn)(z))[0]


def _of_potential(mcmc: Any) -> tuple[Callable[[PyTree], tuple[Array, Array]], PyTree]:
    potential_fn = getattr(mcmc.sampler, "_potential_fn", None)
    if potential_fn is None:
        raise NoScore(f"{type(mcmc.sampler).__name__} has neither a model nor a potential_fn")
    return partial(_gradient, potential_fn), mcmc.get_samples(group_by_chain=True)


def _of_model(
    mcmc: Any, model: Callable[..., Any]
) -> tuple[Callable[[PyTree], tuple[Array, Array]], PyTree]:
    args, kwargs = mcmc._args, mcmc._kwargs
    if isinstance(mcmc.sampler, Exchange):
        raise NoScore("the normalizer of its likelihood is unknown, and so is its score")
    try:
        check_model(model, *args, **kwargs)
    except ModelError as error:
        raise NoScore(str(error)) from error
    samples = draws_by_site(mcmc)
    trace = prototype_trace(model, args, kwargs)
    latent = [
        name for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]
    ]
    missing = [name for name in latent if name not in samples]
    if missing:
        raise NoScore(f"the draws of the sites {missing} were left out")
    levelled = handlers.seed(LevelledModel(model), 0)
    seeded = handlers.seed(model, 0)

    def score(values: dict[str, Array]) -> tuple[Array, Array]:
        z = unconstrain_fn(seeded, args, kwargs, values)
        return _gradient(partial(potential_energy, levelled, args, kwargs), z)

    return score, {name: samples[name] for name in latent}
