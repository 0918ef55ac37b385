"""The state of replica exchange: the replicas, and a record of their swaps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.util import is_prng_key

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._levels import Level
from numpyro_score.infer._swaps import Journeys, Swaps, begin, travel

#: The fields that tell of swaps.
RECORD = (
    "swap_accept_prob",
    "mean_swap_accept_prob",
    "num_swaps",
    "num_undefined",
    "num_hopeless",
    "journeys",
)


class ReplicaExchangeState(NamedTuple):
    """State of :class:`ReplicaExchange`, of one chain; K is the number of replicas.

    - **i** - steps so far, warm-up included.
    - **z** - unconstrained values of the replica that samples the posterior.
    - **potential_energy**, **score**, **accept_prob**, **diverging** - those of this replica.
    - **swap_accept_prob** - acceptance probability of the last swap proposed between each two
      neighbours, from the posterior up, ``(K - 1,)``.
    - **mean_swap_accept_prob** - its mean since the levels were last laid, or since sampling began.
    - **num_swaps** - how many that mean is of.
    - **num_undefined** - for how many of these the ratio of the densities was no number.
    - **num_hopeless** - how often the last move before a swap was ``diverging``, at each level
      since then, ``(K,)``.
    - **journeys** - :class:`Journeys`, whose round trips are counted since then, too.
    - **levels** - :class:`Level`, ``(K,)`` each.
    - **replicas** - states of the kernel that moves them, with a leading axis of replicas.
    - **rng_key** - key of the next step.
    """

    i: Array
    z: PyTree
    potential_energy: Array
    score: Array
    accept_prob: Array
    diverging: Array
    swap_accept_prob: Array
    mean_swap_accept_prob: Array
    num_swaps: Array
    num_undefined: Array
    num_hopeless: Array
    journeys: Journeys
    levels: Level
    replicas: Any
    rng_key: Array


def new_record(num_replicas: int) -> dict[str, Any]:
    """Return the record of a chain before its first step."""
    num_pairs = num_replicas - 1
    return {
        "swap_accept_prob": jnp.zeros(num_pairs),
        "mean_swap_accept_prob": jnp.zeros(num_pairs),
        "num_swaps": jnp.zeros(num_pairs, int),
        "num_undefined": jnp.zeros(num_pairs, int),
        "num_hopeless": jnp.zeros(num_replicas, int),
        "journeys": begin(num_replicas),
    }


def recorded(record: dict[str, Any], hopeless: Array, swaps: Swaps) -> dict[str, Any]:
    """Return the record of one chain with the moves and the swaps of one step in it.

    :param hopeless: whether the last move at each level was.
    """
    num_swaps = record["num_swaps"] + swaps.proposed
    mean = record["mean_swap_accept_prob"]
    gain = (swaps.accept_prob - mean) / jnp.maximum(num_swaps, 1)
    return {
        "swap_accept_prob": jnp.where(
            swaps.proposed, swaps.accept_prob, record["swap_accept_prob"]
        ),
        "mean_swap_accept_prob": mean + jnp.where(swaps.proposed, gain, 0.0),
        "num_swaps": num_swaps,
        "num_undefined": record["num_undefined"] + swaps.undefined,
        "num_hopeless": record["num_hopeless"] + hopeless,
        "journeys": travel(record["journeys"], swaps.source),
    }


def forget(state: ReplicaExchangeState) -> ReplicaExchangeState:
    """Return ``state`` with means that begin anew."""
    journeys = state.journeys
    return state._replace(
        mean_swap_accept_prob=jnp.zeros_like(state.mean_swap_accept_prob),
        num_swaps=jnp.zeros_like(state.num_swaps),
        num_undefined=jnp.zeros_like(state.num_undefined),
        num_hopeless=jnp.zeros_like(state.num_hopeless),
        journeys=journeys._replace(round_trips=jnp.zeros_like(journeys.round_trips)),
    )


def shared_levels(state: ReplicaExchangeState) -> Level:
    """Return the levels, which all chains of a batch have in common."""
    if is_prng_key(state.rng_key):
        return state.levels
    return jax.tree.map(lambda x: x[0], state.levels)


def posterior_fields(replicas: Any) -> dict[str, Any]:
    """Return the fields of the state that are those of the first replica."""
    energy = replicas.potential_energy
    fields = {
        "z": replicas.z,
        "potential_energy": energy,
        "score": replicas.score,
        "accept_prob": getattr(replicas, "accept_prob", jnp.zeros_like(energy)),
        "diverging": replicas.diverging,
    }
    return jax.tree.map(lambda x: x[0], fields)
