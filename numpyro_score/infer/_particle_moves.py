"""MALA for many particles, which learn one step size and one scale from each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc import mala
from jax.flatten_util import ravel_pytree

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._paths import LocalPath

LogDensity = Callable[[PyTree], Array]

_TARGET_ACCEPT_PROB = 0.574
_PILOTS, _PILOT_STEPS = 100, 12
_GAIN = 3.0


class Particle(NamedTuple):
    """One particle between two moves.

    - **position** - unconstrained values.
    - **potential_energy**, **site_scores** - as in :class:`MetropolisState` with ``path="local"``.
    - **gradient** - of the log density, flat.
    """

    position: PyTree
    potential_energy: Array
    site_scores: Any
    gradient: Array


class Tuning(NamedTuple):
    """What particles share.

    - **step_size** - ε, in units of ``scale``.
    - **scale** - standard deviation of the particles in each coordinate, flat.
    - **lost** - the fraction of those tried that have no finite gradient, and so cannot move.
    """

    step_size: Array
    scale: Array
    lost: Array


@dataclass(frozen=True)
class Moves:
    """MALA as BlackJAX's sequential Monte Carlo calls a kernel, with score sites by segments.

    - **path** - the rule by which score sites have a log ratio.
    """

    path: LocalPath

    def init(self, position: PyTree, logdensity_fn: LogDensity) -> Particle:
        """Return a particle at a position."""
        fields, gradient = self.path.evaluate(lambda z: -logdensity_fn(z), position)
        return Particle(position, gradient=-gradient, **fields)

    def step(
        self,
        rng_key: Array,
        particle: Particle,
        logdensity_fn: LogDensity,
        step_size: Array,
        scale: Array,
    ) -> tuple[Particle, mala.MALAInfo]:
        """Return the particle after one step, and what BlackJAX says of it."""
        z, unravel = ravel_pytree(particle.position)
        local = self.path.leave(lambda z: -logdensity_fn(z), particle, remember=True)
        start = mala.MALAState(
            jnp.zeros_like(z), -particle.potential_energy, scale * particle.gradient
        )
        state, info = mala.build_kernel()(
            rng_key, start, lambda v: local(unravel(z + scale * v)), step_size
        )
        position = unravel(z + scale * state.position)
        fields = local.settle(state.logdensity, info.is_accepted, position)
        gradient = state.logdensity_grad / scale
        return Particle(position, gradient=gradient, **fields), info

    def tune(
        self, rng_key: Array, z: PyTree, weights: Array, logdensity_fn: LogDensity, step_size: Array
    ) -> Tuning:
        """Return step size and scale for particles ``z`` of these weights.

        Some of them take a few steps for trial: over so many, the mean acceptance has no noise
        to speak of.
        """
        choose_key, walk_key = jax.random.split(rng_key)
        chosen = jax.random.choice(choose_key, len(weights), (_PILOTS,), p=weights)
        pilots = jax.vmap(lambda z: self.init(z, logdensity_fn))(
            jax.tree.map(lambda x: x[chosen], z)
        )
        lost = jnp.mean(~jnp.all(jnp.isfinite(pilots.gradient), 1))
        flat = jax.vmap(lambda z: ravel_pytree(z)[0])(z)
        mean = weights @ flat
        scale = jnp.sqrt(weights @ (flat - mean) ** 2)
        # A coordinate in which all particles agree has nowhere to go, and is not divided by.
        scale = jnp.maximum(scale, 1e-6 * jnp.max(scale) + jnp.finfo(scale.dtype).tiny)

        def trial(carry: tuple[Any, Array], key_and_gain: tuple[Array, Array]) -> tuple[Any, None]:
            pilots, log_step = carry
            key, gain = key_and_gain
            keys = jax.random.split(key, _PILOTS)
            pilots, info = jax.vmap(
                lambda key, particle: self.step(
                    key, particle, logdensity_fn, jnp.exp(log_step), scale
                )
            )(keys, pilots)
            accept_prob = jnp.mean(jnp.nan_to_num(info.acceptance_rate))
            return (pilots, log_step + gain * (accept_prob - _TARGET_ACCEPT_PROB)), None

        keys = jax.random.split(walk_key, _PILOT_STEPS)
        gains = _GAIN / (1 + jnp.arange(_PILOT_STEPS) / 3)
        (_, log_step), _ = jax.lax.scan(trial, (pilots, jnp.log(step_size)), (keys, gains))
        return Tuning(jnp.exp(log_step), scale, lost)

    def refuse_lost(self, lost: Array, where: str) -> None:
        """Refuse particles that cannot move.

        :param lost: fractions by run, see :class:`Tuning`.
        :param where: when that was.
        """
        worst = float(np.max(lost))
        if worst > 0:
            raise FloatingPointError(
                f"{where}, {worst:.1%} of the particles that were tried have no finite gradient: "
                "the score of a latent site, or that of the likelihood, is NaN or too large where "
                "they are."
            )

    def first_step_size(self, z: PyTree) -> Array:
        """Return a step size to begin with, for particles that fill their scale."""
        size = ravel_pytree(jax.tree.map(lambda x: x[0], z))[0].size
        return jnp.asarray(0.5 * size ** (-1 / 3), float)
