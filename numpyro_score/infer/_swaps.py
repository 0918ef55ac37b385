"""Swaps between the replicas of one chain, and the journeys that they make of it.

Even and odd neighbours take turns, which lets a replica travel on instead of back and forth:
Okabe et al. (2001); Syed et al. (2022), section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array, PyTree

#: ``log_ratio(lower, upper, here, there)``: log ratio of the swap of two positions between two
#: neighbouring levels, given by their numbers.
LogRatio = Callable[[Array, Array, PyTree, PyTree], Array]


class Journeys(NamedTuple):
    """Who is where. A walker is what starts at a level and travels by swaps.

    - **walker** - the walker at each level.
    - **stage** - of each walker: 0 until it has been at the posterior, 1 from there on its way to
      the top, 2 on the way back.
    - **round_trips** - how often a walker went from the posterior to the top and back.
    """

    walker: Array
    stage: Array
    round_trips: Array


class Swaps(NamedTuple):
    """The swaps of one step.

    - **source** - the level that the position at each level comes from.
    - **accept_prob**, **proposed** - of each pair of neighbours.
    - **undefined** - whether its ratio was no number.
    """

    source: Array
    accept_prob: Array
    proposed: Array
    undefined: Array


def begin(num_replicas: int) -> Journeys:
    """Return the journeys of a chain before its first step."""
    stage = jnp.zeros(num_replicas, int).at[0].set(1)
    return Journeys(jnp.arange(num_replicas), stage, jnp.zeros((), int))


def propose(rng_key: Array, z: PyTree, odd: Array, log_ratio: LogRatio, num_replicas: int) -> Swaps:
    """Propose swaps between neighbours, and decide on them.

    :param z: positions by level.
    :param odd: 0 for the pairs (0, 1), (2, 3), …, 1 for (1, 2), (3, 4), …
    """
    lower = odd + 2 * jnp.arange(num_replicas // 2)
    exists = lower + 1 < num_replicas
    lower = jnp.where(exists, lower, 0)
    upper = lower + 1
    at = lambda level: jax.tree.map(lambda x: x[level], z)  # noqa: E731
    log_ratios = jax.vmap(log_ratio)(lower, upper, at(lower), at(upper))
    # A ratio that is no number, as of a score that is NaN there, refuses the swap.
    undefined = jnp.isnan(log_ratios)
    log_ratios = jnp.where(undefined, -jnp.inf, log_ratios)
    uniform = jax.random.uniform(rng_key, log_ratios.shape, log_ratios.dtype)
    accepted = exists & (jnp.log(uniform) < log_ratios)
    source = jnp.arange(num_replicas)
    # Pairs that stay, or do not exist, write to a place that is not there.
    nowhere = jnp.where(accepted, 0, num_replicas)
    source = source.at[lower + nowhere].set(upper, mode="drop")
    source = source.at[upper + nowhere].set(lower, mode="drop")
    pair = jnp.where(exists, lower, num_replicas)

    def by_pair(values: Array) -> Array:
        return jnp.zeros(num_replicas - 1, values.dtype).at[pair].set(values, mode="drop")

    return Swaps(
        source,
        accept_prob=by_pair(jnp.exp(jnp.minimum(log_ratios, 0.0))),
        proposed=by_pair(exists),
        undefined=by_pair(undefined & exists),
    )


def travel(journeys: Journeys, source: Array) -> Journeys:
    """Return the journeys after swaps."""
    walker = journeys.walker[source]
    bottom, top = walker[0], walker[-1]
    arrived = journeys.stage[bottom] == 2
    turned = jnp.where(journeys.stage[top] == 1, 2, journeys.stage[top])
    stage = journeys.stage.at[bottom].set(1).at[top].set(turned)
    return Journeys(walker, stage, journeys.round_trips + arrived)
