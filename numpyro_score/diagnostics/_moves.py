"""Moves that leave a density as it is: rows of data stay draws of it, if they are."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array
from numpyro_score.diagnostics._proposals import Proposals, spread
from numpyro_score.diagnostics._stein_findings import MAX_POINTS
from numpyro_score.diagnostics._subject import Density, Subject

_TARGET = 0.574
_ROUNDS, _PILOT = 8, 10
_SWEEPS, _STEPS = 30, 5


def moved_rows(key: Array, subject: Subject) -> Array:
    r"""Return the second half of the rows after Metropolis steps under the density, ``(n, d)``.

    Each of 30 sweeps has 5 steps of MALA and a jump to near a row of the first half, tested with
    the density of the jumps, so that modes can be left and entered. Both leave the density
    invariant. So rows that are draws of it, and independent of the first half, still are; others
    drift towards what the density says.
    """
    reference, tested = (slice(half.start, half.start + _rows(half)) for half in subject.halves)
    flat = subject.z.reshape(subject.num_rows, -1)
    scale = jnp.asarray(spread(np.asarray(flat[reference])), flat.dtype)
    proposals = Proposals.around(flat[reference])
    rows = (flat[reference], flat[tested])
    known = subject.conditions
    conditions = (tuple(c[reference] for c in known), tuple(c[tested] for c in known))
    shape = subject.z.shape[1:]
    return _run(key, subject.density, rows, conditions, scale, proposals, shape)


def _rows(half: slice) -> int:
    return min(half.stop - half.start, MAX_POINTS)


def _evaluate(density: Density, shape: tuple[int, ...], conditions: tuple[Array, ...]) -> Any:
    """Return a function of rows ``(n, d)`` that gives log densities and scores."""

    def one(z: Array, conditions: tuple[Array, ...]) -> tuple[Array, Array]:
        def log_density(z: Array) -> Array:
            return density(z.reshape(shape), *conditions)

        value, gradient = jax.value_and_grad(log_density)(z)
        safe = jnp.isfinite(value) & jnp.isfinite(gradient).all()
        return jnp.where(safe, value, -jnp.inf), jnp.where(safe, gradient, 0.0)

    return lambda z: jax.vmap(one)(z, conditions)


def _mala(key: Array, state: Any, evaluate: Any, scale: Array, step_size: Array) -> tuple[Any, Any]:
    """Take one step of MALA with each row; returns the state and the mean acceptance."""
    z, value, score = state
    noise_key, accept_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, z.shape, z.dtype)
    to = z + scale * (step_size * scale * score + jnp.sqrt(2 * step_size) * noise)
    new_value, new_score = evaluate(to)
    back = (z - to) / scale - step_size * scale * new_score
    log_ratio = new_value - value + 0.5 * jnp.sum(noise**2, 1)
    log_ratio -= jnp.sum(back**2, 1) / (4 * step_size)
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    return _choose(accept_key, (to, new_value, new_score), state, log_ratio)


def _choose(key: Array, new: Any, old: Any, log_ratio: Array) -> tuple[Any, Array]:
    accepted = jnp.log(jax.random.uniform(key, log_ratio.shape)) < log_ratio

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(accepted.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    accept_prob = jnp.mean(jnp.exp(jnp.minimum(log_ratio, 0.0)))
    return jax.tree.map(choose, new, old), accept_prob


def _tune(
    key: Array,
    density: Density,
    z: Array,
    conditions: tuple[Array, ...],
    scale: Array,
    shape: tuple[int, ...],
) -> Array:
    """Return the step size at which the first half of the rows accepts as MALA should."""
    evaluate = _evaluate(density, shape, conditions)
    start = (z, *evaluate(z))

    def round_(carry: Any, key: Array) -> tuple[Any, None]:
        state, log_step = carry

        def step(state: Any, key: Array) -> tuple[Any, Array]:
            return _mala(key, state, evaluate, scale, jnp.exp(log_step))

        state, accept_prob = jax.lax.scan(step, state, jax.random.split(key, _PILOT))
        return (state, log_step + 3 * (accept_prob.mean() - _TARGET)), None

    first = jnp.log(1.4 / z.shape[1] ** (1 / 3))
    keys = jax.random.split(key, _ROUNDS)
    (_, log_step), _ = jax.lax.scan(round_, (start, first), keys)
    return jnp.exp(log_step)


@eqx.filter_jit
def _run(
    key: Array,
    density: Density,
    halves: tuple[Array, Array],
    conditions: tuple[tuple[Array, ...], tuple[Array, ...]],
    scale: Array,
    proposals: Proposals,
    shape: tuple[int, ...],
) -> Array:
    tune_key, key = jax.random.split(key)
    step_size = _tune(tune_key, density, halves[0], conditions[0], scale, shape)
    z, evaluate = halves[1], _evaluate(density, shape, conditions[1])

    def sweep(state: Any, key: Array) -> tuple[Any, None]:
        walk_key, jump_key, accept_key = jax.random.split(key, 3)

        def step(state: Any, key: Array) -> tuple[Any, Array]:
            return _mala(key, state, evaluate, scale, step_size)

        state, _ = jax.lax.scan(step, state, jax.random.split(walk_key, _STEPS))
        to = proposals.sample(jump_key, len(z))
        new = (to, *evaluate(to))
        log_ratio = new[1] - state[1] + proposals.log_density(state[0]) - proposals.log_density(to)
        log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
        return _choose(accept_key, new, state, log_ratio)[0], None

    start = (z, *evaluate(z))
    (z, _, _), _ = jax.lax.scan(sweep, start, jax.random.split(key, _SWEEPS))
    return z
