"""Chains under a network that is learned, and what they are compared with."""

from __future__ import annotations

from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array
from numpyro_score.networks import as_network
from numpyro_score.objectives._base import batched_energy, map_rows
from numpyro_score.samplers import langevin


class Chains(Protocol):
    """How negatives are drawn."""

    @property
    def step_size(self) -> float:
        """ε of the Langevin step."""

    @property
    def num_steps(self) -> int:
        """Steps of each chain."""

    @property
    def metropolis(self) -> bool:
        """Whether steps are tested."""


def check_magnitude(magnitude: float) -> None:
    """Refuse a weight that is neither 0 nor above it."""
    if magnitude != 0:
        check_positive(magnitude, "a magnitude other than 0")


def negatives(
    chains: Chains, network: Any, start: Array, key: Array, condition: Array | None
) -> Array:
    """Return where a chain from each row of ``start`` is after its steps; it has no derivative."""
    arrays, static = eqx.partition(as_network(network), eqx.is_array)
    # Stopped before the chain as well, so that nothing is differentiated along it.
    frozen = batched_energy(eqx.combine(jax.lax.stop_gradient(arrays), static), start)

    def chain(x: Array, key: Array, *condition: Array) -> Array:
        return langevin(
            key,
            lambda u: -frozen(u, *condition),
            x,
            step_size=chains.step_size,
            num_steps=chains.num_steps,
            metropolis=chains.metropolis,
        )

    ends = map_rows(chain, condition, start, jax.random.split(key, len(start)))
    return jax.lax.stop_gradient(ends)


def contrast(low: Array, high: Array, magnitude: float) -> Array:
    """Return the losses of the energies of examples and of negatives, in turn where those lack."""
    high = high[jnp.arange(len(low)) % len(high)]
    return low - high + magnitude * (low**2 + high**2)
