"""What a step of replica exchange is made of: moves at each level, and swaps between them.

Replicas are a state of the kernel that moves them with a leading axis of levels; chains, where
there are several, come after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.util import is_prng_key

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._keys import split_key
from numpyro_score.infer._ladder import even_out
from numpyro_score.infer._levels import Level, LevelledPotential
from numpyro_score.infer._replica_state import (
    RECORD,
    ReplicaExchangeState,
    forget,
    recorded,
    shared_levels,
)
from numpyro_score.infer._swaps import propose
from numpyro_score.infer._target import Target
from numpyro_score.infer.adapter import BlackJAXKernel


@dataclass(frozen=True)
class Replicas:
    """The kernel of a levelled model.

    - **num_moves** - steps between swaps.
    """

    mover: BlackJAXKernel
    num_replicas: int
    num_moves: int

    def build_target(
        self, rng_key: Array, init_params: PyTree, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[Target, PyTree]:
        """Return the target of the levelled model, and starts for each replica of each chain."""
        build = self.mover._build_target
        if init_params is not None:
            target, z = build(rng_key, init_params, args, kwargs)
            return target, jax.tree.map(lambda x: jnp.repeat(x[None], self.num_replicas, 0), z)
        keys = self._spread(rng_key)
        lead = keys.shape[: 1 if is_prng_key(rng_key) else 2]
        target, z = build(keys.reshape(-1, *keys.shape[len(lead) :]), None, args, kwargs)
        return target, jax.tree.map(lambda x: x.reshape(lead + x.shape[1:]), z)

    def start(self, rng_key: Array, z: PyTree, levels: Level, potential: LevelledPotential) -> Any:
        """Return the replicas at their starts."""

        def start(rng_key: Array, z: PyTree, level: Level) -> Any:
            return self.mover._start(rng_key, z, potential.at(level))

        return jax.vmap(start, out_axes=self._axes())(self._spread(rng_key), z, levels)

    def move(
        self, state: ReplicaExchangeState, potential: LevelledPotential
    ) -> ReplicaExchangeState:
        """Return the state after ``num_moves`` steps at each level."""

        def moves(replica: Any, potential_fn: Any) -> Any:
            step = lambda _, replica: self.mover._advance(replica, potential_fn)  # noqa: E731
            return jax.lax.fori_loop(0, self.num_moves, step, replica)

        # Keys of its own would go on as they were where a run goes on with another key.
        rng_key, moves_key = split_key(state.rng_key)
        replicas = state.replicas._replace(rng_key=self._spread(moves_key))
        return self._at_each(moves, state._replace(rng_key=rng_key, replicas=replicas), potential)

    def swap(
        self, state: ReplicaExchangeState, potential: LevelledPotential
    ) -> ReplicaExchangeState:
        """Return the state after neighbours were offered to swap."""
        levels = shared_levels(state)

        def log_ratio(lower: Array, upper: Array, here: PyTree, there: PyTree) -> Array:
            low = jax.tree.map(lambda x: x[lower], levels)
            high = jax.tree.map(lambda x: x[upper], levels)
            return potential.log_ratio(there, low, high) - potential.log_ratio(here, low, high)

        def exchange(
            rng_key: Array, z: PyTree, diverging: Array, record: dict[str, Any]
        ) -> tuple[PyTree, Any]:
            rng_key, swap_key = jax.random.split(rng_key)
            swaps = propose(swap_key, z, state.i % 2, log_ratio, self.num_replicas)
            z = jax.tree.map(lambda x: x[swaps.source], z)
            return z, recorded(record, diverging, swaps) | {"rng_key": rng_key}

        if not is_prng_key(state.rng_key):
            exchange = jax.vmap(exchange, in_axes=(0, 1, 1, 0), out_axes=(1, 0))
        record = {field: getattr(state, field) for field in RECORD}
        z, record = exchange(state.rng_key, state.replicas.z, state.replicas.diverging, record)
        state = state._replace(replicas=state.replicas._replace(z=z), **record)
        return self.evaluate(state, potential)

    def evaluate(
        self, state: ReplicaExchangeState, potential: LevelledPotential
    ) -> ReplicaExchangeState:
        """Return the state with the potential and score of each replica at its level."""
        return self._at_each(self.mover._evaluate, state, potential)

    def lay_levels(
        self, state: ReplicaExchangeState, potential_fn: LevelledPotential
    ) -> ReplicaExchangeState:
        """Return the state with levels at which swaps are even."""
        accept_prob = state.mean_swap_accept_prob
        if not is_prng_key(state.rng_key):
            accept_prob = accept_prob.mean(0)
        levels = even_out(shared_levels(state), accept_prob)
        levels = jax.tree.map(
            lambda new, old: jnp.broadcast_to(new, old.shape), levels, state.levels
        )
        return self.evaluate(forget(state._replace(levels=levels)), potential_fn)

    def _at_each(
        self,
        fn: Callable[[Any, Callable[[PyTree], Array]], Any],
        state: ReplicaExchangeState,
        potential: LevelledPotential,
    ) -> ReplicaExchangeState:
        """Return the state with ``fn(replica, potential_fn)`` in the place of each replica."""
        axes = self._axes()

        def call(replica: Any, level: Level) -> Any:
            return fn(replica, potential.at(level))

        call = jax.vmap(call, in_axes=(axes, 0), out_axes=axes)
        return state._replace(replicas=call(state.replicas, shared_levels(state)))

    def _axes(self) -> Any:
        """Axes of the levels. The counter of steps has none, see :class:`BlackJAXKernel`."""
        state_cls = self.mover.state_cls
        return state_cls(**dict.fromkeys(state_cls._fields, 0) | {"i": None})

    def _spread(self, rng_key: Array) -> Array:
        """Return a key for each replica, or for each replica of each chain, replicas first."""
        split = partial(jax.random.split, num=self.num_replicas)
        return split(rng_key) if is_prng_key(rng_key) else jax.vmap(split, out_axes=1)(rng_key)
