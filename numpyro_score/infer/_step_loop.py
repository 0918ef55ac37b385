"""The loop over the steps of a chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer.mcmc import MCMCKernel

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._transition import StepParts
from numpyro_score.infer.adapter import BlackJAXKernel
from numpyro_score.infer.preconditioned import PreconditionedKernel

# (i, state, rows) -> rows, where the state after step i is kept.
Keep = Callable[[Array, Any, PyTree], PyTree]


class Tally(NamedTuple):
    """What went wrong in a chunk, counted over its steps and chains."""

    non_finite: Array
    divergent: Array


def _nothing_wrong() -> Tally:
    return Tally(jnp.int32(0), jnp.int32(0))


def _count(tally: Tally, state: PyTree) -> Tally:
    energy = getattr(state, "potential_energy", jnp.zeros(()))
    diverging = getattr(state, "diverging", jnp.zeros((), bool))
    return Tally(
        tally.non_finite + jnp.sum(~jnp.isfinite(energy), dtype=jnp.int32),
        tally.divergent + jnp.sum(diverging, dtype=jnp.int32),
    )


def take_steps(
    kernel: MCMCKernel,
    arguments: tuple[tuple, dict[str, Any]],
    num_steps: Array,
    keep: Keep,
    start: tuple[Any, PyTree],
) -> tuple[Any, PyTree, Tally]:
    """Take ``num_steps`` steps of an initialized kernel.

    :param arguments: of the model, positional ones and those by name.
    :param start: the state, and rows to keep draws in.
    :return: both of them after the last step, and what went wrong.
    """
    parts = _parts(kernel, *arguments)
    if parts is not None:
        return _take_apart(parts, num_steps, keep, start)

    def body(i: Array, carry: Any) -> Any:
        state, rows, tally = carry
        state = kernel.sample(state, *arguments)
        return state, keep(i, state, rows), _count(tally, state)

    out: tuple[Any, PyTree, Tally] = jax.lax.fori_loop(
        0, num_steps, body, (*start, _nothing_wrong())
    )
    return out


def _parts(kernel: MCMCKernel, args: tuple, kwargs: dict[str, Any]) -> StepParts | None:
    # Somebody's own step is called, whatever it inherits from.
    if not isinstance(kernel, PreconditionedKernel):
        return None
    ours = (BlackJAXKernel.sample, PreconditionedKernel._advance)
    if tuple(getattr(f, "__func__", None) for f in (kernel.sample, kernel._advance)) != ours:
        return None
    return kernel.parts(args, kwargs)


def _take_apart(
    parts: StepParts, num_steps: Array, keep: Keep, start: tuple[Any, PyTree]
) -> tuple[Any, PyTree, Tally]:
    """Take groups of steps from which nothing is learned; a group of warm-up is one step.

    After warm-up there is one group: within it the metric is a constant of the loop, and no step
    asks whether it belongs to the warm-up, which costs up to as much as a step of a cheap model.
    """
    move = jax.jit(parts.move)  # traced once, though it is asked for twice

    def step(i: Array, carry: Any) -> Any:
        state, _, rows, tally = carry
        state, transition = move(state)
        return state, transition, keep(i, state, rows), _count(tally, state)

    def group(carry: Any) -> Any:
        first, (state, *rest) = carry
        i = state.i
        end = jnp.where(i < parts.num_warmup, first + 1, num_steps)
        state, transition, rows, tally = jax.lax.fori_loop(first, end, step, (state, *rest))
        if parts.num_warmup:
            state = parts.learn(i, state, transition)
            rows = keep(end - 1, state, rows)
        return end, (state, transition, rows, tally)

    state, rows = start
    shapes = jax.eval_shape(move, state)[1]
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    carry = jnp.zeros_like(num_steps), (state, nothing, rows, _nothing_wrong())
    _, (state, _, rows, tally) = jax.lax.while_loop(lambda c: c[0] < num_steps, group, carry)
    return state, rows, tally
