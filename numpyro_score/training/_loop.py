"""The compiled part of a fit: many steps per call, and the validation loss."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from numpyro_score._typing import Array, PyTree
from numpyro_score.networks._frozen import trainable
from numpyro_score.training._data import Rows
from numpyro_score.training._sources import draw_index, step_keys


class State(NamedTuple):
    """What one step hands to the next; ``memory`` is that of an objective which has one."""

    params: PyTree
    average: PyTree
    optimizer: PyTree
    step: Array
    finite: Array
    memory: PyTree


class Problem(NamedTuple):
    """What stays the same over a fit; functions are static when it is compiled."""

    rest: PyTree
    objective: Any
    optimizer: optax.GradientTransformation
    rows: Rows | None
    rng_key: Array
    batch_size: int
    ema_decay: float
    sharding: jax.sharding.Sharding | None = None
    one_by_one: bool = False

    def network(self, params: PyTree) -> Any:
        """Return the network that has these parameters."""
        return eqx.combine(params, self.rest)

    def losses(self, params: PyTree, rows: Rows, rng_key: Array) -> Array:
        """Return the loss of each of these rows."""
        args = () if rows.condition is None else (rows.condition,)
        return self.objective(self.network(params), rows.data, rng_key, *args)

    def training_loss(
        self, params: PyTree, rows: Rows, rng_key: Array, memory: PyTree
    ) -> tuple[Array, PyTree]:
        """Return the mean loss of these rows, and what the objective remembers."""
        if not has_memory(self.objective):
            return jnp.mean(self.losses(params, rows, rng_key)), memory
        losses, memory = self.objective.update(
            self.network(params), rows.data, rng_key, memory, rows.condition
        )
        return jnp.mean(losses), memory


def split_network(network: Any) -> tuple[PyTree, PyTree]:
    """Split a network into the arrays that are trained and everything else."""
    return eqx.partition(network, trainable(network))


def has_memory(objective: Any) -> bool:
    """Whether the objective hands something from one step to the next."""
    return hasattr(objective, "init_memory")


def has_minimum(objective: Any) -> bool:
    """Whether a lower loss is a better network."""
    return getattr(objective, "has_minimum", True)


def start(params: PyTree, problem: Problem, rows: Rows) -> State:
    """Return the state before the first step; ``rows`` are those that a memory starts with."""
    memory = None
    if has_memory(problem.objective):
        # Steps fold their number into the key, from 0 on.
        key = jax.random.fold_in(problem.rng_key, 2**32 - 1)
        memory = problem.objective.init_memory(key, rows.data, rows.condition)
    optimizer = problem.optimizer.init(params)
    return State(params, params, optimizer, jnp.int32(0), jnp.bool_(True), memory)


def _step(problem: Problem, state: State, batch: Rows | None, careful: bool) -> tuple[State, Array]:
    """Take one step; ``finite`` of the new state says whether it may be kept."""
    index_key, loss_key = step_keys(problem.rng_key, state.step)
    if batch is None:
        assert problem.rows is not None, "or there are batches"
        batch = problem.rows.take(draw_index(index_key, problem.batch_size, len(problem.rows)))
    if problem.sharding is not None:
        batch = jax.lax.with_sharding_constraint(batch, problem.sharding)
    (loss, memory), grads = jax.value_and_grad(problem.training_loss, has_aux=True)(
        state.params, batch, loss_key, state.memory
    )
    updates, optimizer = problem.optimizer.update(grads, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    # Early averages would remember the initial weights; the decay grows towards its value.
    decay = jnp.minimum(problem.ema_decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(
        lambda old, new: (decay * old + (1 - decay) * new).astype(old.dtype), state.average, params
    )
    finite = jnp.isfinite(loss)
    if careful:
        finite &= all_finite(params)
        keep = partial(jax.tree.map, lambda new, old: jnp.where(finite, new, old))
        params, average = keep(params, state.params), keep(average, state.average)
    return State(params, average, optimizer, state.step + finite, finite, memory), loss


def all_finite(tree: PyTree) -> Array:
    """Return whether no array of ``tree`` holds a NaN or infinity."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def run_chunk(
    problem: Problem,
    state: State,
    num_steps: Array,
    chunk_size: int,
    careful: bool,
    batches: Rows | None = None,
) -> tuple[State, Array]:
    """Take ``num_steps`` steps, or as many as are finite.

    The number is traced, so that a shorter last chunk runs the same compiled code. To look at
    every parameter at every step costs 5 % of the time of a fit, so only a careful run does: it
    stops before a step that is not finite, where the quick one stops after it.

    :param batches: those of the steps, where ``problem`` has no rows, with a leading axis of
        length ``chunk_size``.
    :return: the state, whose ``finite`` is False after a stop, and the loss of each step in an
        array of shape ``(chunk_size,)``.
    """
    run = _run_one_by_one if problem.one_by_one else _run_loop
    return run(problem, state, num_steps, chunk_size, careful, batches)


def _run_one_by_one(
    problem: Problem,
    state: State,
    num_steps: Array,
    chunk_size: int,
    careful: bool,
    batches: Rows | None,
) -> tuple[State, Array]:
    losses = np.zeros(chunk_size, jnp.result_type(float))
    for i in range(int(num_steps)):
        batch = jax.tree.map(lambda x, i=i: x[i], batches)
        state, losses[i] = _compiled_step(problem, state, batch, careful)
        if not state.finite:
            break
    finite = state.finite & _compiled_all_finite(state.params)
    return state._replace(finite=finite), jnp.asarray(losses)


@eqx.filter_jit
def _run_loop(
    problem: Problem,
    state: State,
    num_steps: Array,
    chunk_size: int,
    careful: bool,
    batches: Rows | None,
) -> tuple[State, Array]:
    def unfinished(carry: tuple[State, Array, Array]) -> Array:
        state, _, i = carry
        return state.finite & (i < num_steps)

    def body(carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
        state, losses, i = carry
        batch = jax.tree.map(lambda x: x[i], batches)
        state, loss = _step(problem, state, batch, careful)
        return state, losses.at[i].set(loss.astype(losses.dtype)), i + 1

    losses = jnp.zeros(chunk_size)
    state, losses, _ = jax.lax.while_loop(unfinished, body, (state, losses, jnp.int32(0)))
    return state._replace(finite=state.finite & all_finite(state.params)), losses


_compiled_step = eqx.filter_jit(_step)
_compiled_all_finite = jax.jit(all_finite)


def losses_of(problem: Problem, params: PyTree, rows: Rows, rng_key: Array) -> Array:
    """Return the loss of each of ``rows``, computed a batch at a time."""
    num_rows = len(rows)
    size = min(problem.batch_size, num_rows)
    num_batches = -(-num_rows // size)
    # Some rows are taken twice to fill the last batch.
    filled = rows.take(jnp.arange(num_batches * size) % num_rows)
    batches = jax.tree.map(lambda x: x.reshape(num_batches, size, *x.shape[1:]), filled)
    keys = jax.random.split(rng_key, num_batches)
    if problem.one_by_one:
        parts = [jax.tree.map(lambda x, i=i: x[i], (batches, keys)) for i in range(num_batches)]
        each = [_compiled_losses(problem, params, *part) for part in parts]
        return jnp.concatenate(each)[:num_rows]
    return _map_losses(problem, params, batches, keys).ravel()[:num_rows]


@eqx.filter_jit
def _compiled_losses(problem: Problem, params: PyTree, batch: Rows, rng_key: Array) -> Array:
    return problem.losses(params, batch, rng_key)


@eqx.filter_jit
def _map_losses(problem: Problem, params: PyTree, batches: Rows, keys: Array) -> Array:
    return jax.lax.map(lambda args: problem.losses(params, *args), (batches, keys))


def is_slow_in_loops(jaxpr: Any) -> bool:
    """Whether steps of such an objective had better be programs of their own.

    Within a compiled loop, XLA's convolutions on a CPU take some ten times as long as outside.
    """
    return jax.default_backend() == "cpu" and "conv_general_dilated" in str(jaxpr)
