"""Auxiliary data: drawn anew at a proposal, so that an unknown normalizer cancels.

Z(θ) of the data at θ stands in the ratio of a proposal as Z(θ) / Z(θ'). Data x drawn at θ' bring
the factor Z(θ') / Z(θ) with them; see :class:`numpyro_score.infer.Exchange`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro import handlers

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._paths import AnchoredPath, AnchoredStep, PotentialFn
from numpyro_score.infer.model_checks import ModelError

#: Draws data from a distribution, in the shape of what it is the distribution of.
Sampler: TypeAlias = Callable[[Array, dist.Distribution], Array]


@dataclass(frozen=True)
class Auxiliary:
    """How data are drawn at latent values of a model, and what ratio they give.

    - **sites** - the observed sites whose normalizer depends on a latent site.
    - **samplers** - by site; one that is not there draws by the ``sample`` of its distribution.
    """

    model: Callable[..., Any]
    args: tuple
    kwargs: dict[str, Any]
    sites: tuple[str, ...]
    samplers: Mapping[str, Sampler]

    def distributions(self, latent: dict[str, Array]) -> dict[str, dist.Distribution]:
        """Return the distribution of the data of each site, at constrained values."""
        substituted = handlers.substitute(handlers.seed(self.model, 0), data=latent)
        trace = handlers.trace(substituted).get_trace(*self.args, **self.kwargs)
        return {name: _of_data(trace[name]) for name in self.sites}

    def draw(self, rng_key: Array, distributions: dict[str, dist.Distribution]) -> dict[str, Array]:
        """Return data of each site.

        :raises ModelError: for a site that has no sampler.
        :raises ValueError: for a sampler whose draws have the wrong shape.
        """
        keys = jax.random.split(rng_key, max(len(self.sites), 1))
        return {
            name: self._draw_site(key, name, distributions[name])
            for name, key in zip(self.sites, keys, strict=False)
        }

    def _draw_site(self, rng_key: Array, name: str, distribution: dist.Distribution) -> Array:
        if name not in self.samplers:
            try:
                return distribution.sample(rng_key)
            except NotImplementedError as error:
                raise ModelError(
                    f"Exchange draws data of site {name!r} at every proposal, and its distribution "
                    f"has no sampler. Pass Exchange(model, samplers={{{name!r}: fn}}) with exact "
                    "draws fn(rng_key, distribution), or give the distribution "
                    "sampler=numpyro_score.samplers.Langevin(), whose draws are approximate."
                ) from error
        draws = jnp.asarray(self.samplers[name](rng_key, distribution))
        if draws.shape != distribution.shape():
            raise ValueError(
                f"samplers[{name!r}] must return draws of the shape of the data, "
                f"{distribution.shape()}, which is distribution.shape(); got {draws.shape}."
            )
        return draws

    def log_ratio(self, rng_key: Array, here: dict[str, Array], there: dict[str, Array]) -> Array:
        """Return Σ log p~(x | here) - log p~(x | there) for data x drawn there.

        -inf where a draw is not finite, which refuses the proposal.
        """
        old, new = self.distributions(here), self.distributions(there)
        ratio = jnp.zeros(())
        for name, x in self.draw(rng_key, new).items():
            # Row by row: the difference of two sums over many rows would lose digits.
            difference = jnp.sum(old[name].log_prob(x) - new[name].log_prob(x))
            ratio += jnp.where(jnp.all(jnp.isfinite(x)), difference, -jnp.inf)
        return ratio


def _of_data(site: dict[str, Any]) -> dist.Distribution:
    """Return the distribution of a site, expanded to the shape of what was observed there."""
    fn, shape = site["fn"], jnp.shape(site["value"])
    lead = shape[: len(shape) - fn.event_dim]
    return fn if lead == fn.batch_shape else fn.expand(lead)


# -- the log density of a step -----------------------------------------------------------------


@dataclass(frozen=True)
class ExchangeTarget:
    """The potential energy without Z, with all that a step needs to do without Z.

    - **constrain_fn** - from unconstrained values to those of the sites.
    - **draw_key** - for the auxiliary data of one step.
    """

    potential_fn: PotentialFn
    constrain_fn: Callable[[PyTree], PyTree]
    auxiliary: Auxiliary
    draw_key: Array | None = None

    def __call__(self, z: PyTree) -> Array:
        """Return the potential energy at ``z``."""
        return self.potential_fn(z)

    def log_ratio(self, here: PyTree, there: PyTree) -> Array:
        """Return the log ratio of auxiliary data drawn ``there``, of unconstrained values."""
        assert self.draw_key is not None, "Exchange._step"
        return self.auxiliary.log_ratio(self.draw_key, self._latent(here), self._latent(there))

    def _latent(self, z: PyTree) -> dict[str, Array]:
        values = self.constrain_fn(z)
        return {name: values[name] for name in z}


@dataclass(frozen=True)
class ExchangePath(AnchoredPath):
    """A log density around where the chain is, in which Z cancels. Nothing takes a gradient."""

    def evaluate(self, potential_fn: PotentialFn, z: PyTree) -> tuple[dict[str, Any], Array]:
        """Return the fields of a state at ``z``, and zeros in the place of a gradient."""
        return {"potential_energy": potential_fn(z)}, jnp.zeros_like(ravel_pytree(z)[0])

    def leave(self, potential_fn: Any, state: Any, remember: bool) -> ExchangeStep:
        """Return the log density of a step that starts at ``state``."""
        return ExchangeStep(potential_fn, state, jax.new_ref(state.potential_energy))


@dataclass(frozen=True)
class ExchangeStep(AnchoredStep):
    """The log density around the start of a step, in which that of the start is -U(z).

    At a proposal it is -U(z') + Σ log p~(x | θ) - log p~(x | θ'), with data x that are drawn there:
    called once. A ref carries U(z') out, which is not the number that the Metropolis test sees.
    """

    potential_fn: ExchangeTarget
    state: Any
    energy: Any

    def __call__(self, z: PyTree) -> Array:
        """Return the log density at a proposal; -inf where it is not finite."""
        energy = self.potential_fn(z)
        self.energy[...] = energy
        log_density = self.potential_fn.log_ratio(self.state.z, z) - energy
        return jnp.where(jnp.isfinite(log_density), log_density, -jnp.inf)

    def settle(self, logdensity: Array, moved: Array, z: PyTree) -> dict[str, Any]:
        """Return the fields of the state after the step, which ended at ``z``."""
        return {"potential_energy": jnp.where(moved, self.energy[...], self.state.potential_energy)}
