"""A model as particles see it: a prior that can be drawn from, and a likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.infer.util import constrain_fn, log_density, potential_energy, unconstrain_fn

from numpyro_score._typing import Array, PyTree
from numpyro_score.distributions._parts import unnormalized_parts
from numpyro_score.distributions.product import drawn_together
from numpyro_score.infer._levels import LEVEL, Level, LevelledModel, latent_diffusions
from numpyro_score.infer.model_checks import (
    ModelError,
    check_structure,
    prototype_trace,
    refuse_subsampling,
)

#: The log of a likelihood of 0.
IMPOSSIBLE = -1e30


@dataclass(frozen=True)
class ParticleTarget:
    """The prior and the likelihood of a model with its arguments, of unconstrained values.

    - **latent**, **observed** - names of its sites.
    - **diffusions** - the latent sites whose prior can be had with more noise.
    - **together** - the latent sites whose draws come from one population.
    - **unnormalized** - the observed sites whose density is known up to Z.
    """

    model: Callable[..., Any]
    args: tuple
    kwargs: dict[str, Any]
    latent: tuple[str, ...]
    observed: tuple[str, ...]
    diffusions: tuple[str, ...]
    together: tuple[str, ...] = ()
    unnormalized: tuple[str, ...] = ()

    def draw(self, rng_key: Array, known: PyTree | None = None) -> PyTree:
        """Return a draw from the prior.

        :param known: values of sites that were drawn before.
        """
        trace = self._trace(rng_key, known or {})
        return {name: trace[name]["value"] for name in self.latent}

    def draw_together(self, rng_key: Array, num: int) -> PyTree:
        """Return draws of the sites that are drawn together, with a first axis of ``num``.

        These are products, whose normalizer is unknown, so that they depend on no other site.
        """
        if not self.together:
            return {}
        sites = prototype_trace(self.model, self.args, self.kwargs)
        anything = {name: jnp.zeros(sites[name]["value"].shape) for name in self.together}
        trace = self._trace(rng_key, anything)
        keys = jax.random.split(rng_key, len(self.together))
        return {
            name: trace[name]["fn"].sample(key, (num,))
            for name, key in zip(self.together, keys, strict=True)
        }

    def _trace(self, rng_key: Array, known: PyTree) -> dict[str, Any]:
        model = handlers.seed(handlers.substitute(self.model, data=known), rng_key)
        trace: dict[str, Any] = handlers.trace(model).get_trace(*self.args, **self.kwargs)
        return trace

    def unconstrain(self, values: PyTree) -> PyTree:
        """Return values of the sites without constraints."""
        return unconstrain_fn(self._seeded(self.model), self.args, self.kwargs, values)

    def constrain(self, z: PyTree) -> PyTree:
        """Return values of the sites, and deterministic ones."""
        model = self._seeded(self.model)
        return constrain_fn(model, self.args, self.kwargs, z, return_deterministic=True)

    def log_prior(self, z: PyTree, level: Level) -> Array:
        """Return the log density of the prior at a level, up to a number that depends on it."""
        levelled = self._seeded(LevelledModel(self.model))
        prior = handlers.block(levelled, hide_fn=lambda site: site["name"] in self.observed)
        return -potential_energy(prior, self.args, self.kwargs | {LEVEL: level}, z)

    def log_likelihood(self, z: PyTree) -> Array:
        """Return the log density of what was observed; a finite number for a likelihood of 0."""
        values = self.constrain(z)
        known = handlers.substitute(
            self._seeded(self.model), data={name: values[name] for name in self.latent}
        )
        data = handlers.block(known, hide_fn=lambda site: site["name"] in self.latent)
        # A power of λ = 0 is to forgive what is impossible, and 0 times infinity is no number.
        return jnp.maximum(log_density(data, self.args, self.kwargs, {})[0], IMPOSSIBLE)

    def _seeded(self, model: Callable[..., Any]) -> Callable[..., Any]:
        return handlers.seed(model, 0)


def particle_target(
    model: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> ParticleTarget:
    """Return the target of a model.

    :raises ModelError: for a model that cannot be sampled, see :func:`check_model`, or whose prior
        cannot be drawn from.
    """
    levelled = LevelledModel(model)
    check_structure(levelled, args, kwargs, refuse_subsampling)
    trace = prototype_trace(model, args, kwargs)
    sites = {name: site for name, site in trace.items() if site["type"] == "sample"}
    target = ParticleTarget(
        model,
        args,
        kwargs,
        tuple(name for name, site in sites.items() if not site["is_observed"]),
        tuple(name for name, site in sites.items() if site["is_observed"]),
        tuple(latent_diffusions(model, args, kwargs)),
        tuple(
            name
            for name, site in sites.items()
            if not site["is_observed"] and drawn_together(site["fn"])
        ),
        tuple(
            name
            for name, site in sites.items()
            if site["is_observed"] and unnormalized_parts(site["fn"])
        ),
    )
    try:
        jax.eval_shape(target.draw, jax.random.key(0))
    except NotImplementedError as error:
        raise ModelError(
            "Particles start as draws from the prior, and a latent site of this model has a "
            f"distribution that cannot be drawn from: {error}"
        ) from error
    return target


def add_noise(rng_key: Array, values: PyTree, names: tuple[str, ...], noise_scale: Array) -> PyTree:
    """Return values with noise at the named sites."""
    keys = jax.random.split(rng_key, max(len(names), 1))
    noisy = dict(values)
    for name, key in zip(names, keys, strict=False):
        x = values[name]
        noisy[name] = x + noise_scale * jax.random.normal(key, jnp.shape(x), x.dtype)
    return noisy
