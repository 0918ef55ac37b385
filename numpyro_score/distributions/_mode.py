"""The most probable event, by L-BFGS from several starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.distributions.transforms import Transform

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array, Shape


class Minimum(NamedTuple):
    """Where one start ended: the event, its energy, and the gradient norm per dimension."""

    x: Array
    energy: Array
    gradient: Array


def minimize_energy(
    rng_key: Array,
    log_prob: Callable[[Array], Array],
    transform: Transform,
    event_shape: Shape,
    num_steps: int,
    tol: float,
) -> Minimum:
    """Minimize ``-log_prob`` over one event, from a standard normal start in ``transform``."""
    start = jax.random.normal(rng_key, transform.inverse_shape(event_shape))

    def energy(v: Array) -> Array:
        return -log_prob(transform(v))

    v = minimize(energy, start, num_steps, tol)
    value, grad = jax.value_and_grad(energy)(v)
    return Minimum(transform(v), jnp.where(jnp.isfinite(value), value, jnp.inf), _rms(grad))


def minimize(
    fn: Callable[[Array], Array], start: Array, num_steps: int, tol: float | Array
) -> Array:
    """Return where L-BFGS from ``start`` ends: at a gradient below ``tol``, or out of steps.

    :param fn: of one vector.
    :param tol: for the root mean square of the gradient.
    """
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(fn)

    def unfinished(carry: tuple) -> Array:
        step, _, _, grad = carry
        return (step == 0) | ((step < num_steps) & (_rms(grad) > tol))

    def improve(carry: tuple) -> tuple:
        step, v, state, _ = carry
        value, grad = value_and_grad(v, state=state)
        updates, state = optimizer.update(grad, state, v, value=value, grad=grad, value_fn=fn)
        return step + 1, optax.apply_updates(v, updates), state, grad

    carry = (0, start, optimizer.init(start), jnp.zeros_like(start))
    return jax.lax.while_loop(unfinished, improve, carry)[1]


def _rms(x: Array) -> Array:
    return jnp.sqrt(jnp.mean(x**2))


def best_minimum(minima: Minimum, num_steps: int, tol: float) -> Array:
    """Pick the lowest of the starts, the first axis; tell where none of them is good enough."""
    best = jnp.argmin(minima.energy, axis=0)

    def pick(leaf: Array) -> Array:
        index = best.reshape((1, *best.shape) + (1,) * (leaf.ndim - 1 - best.ndim))
        return jnp.take_along_axis(leaf, index, axis=0)[0]

    chosen = jax.tree.map(pick, minima)
    if is_concrete(chosen.energy):
        _tell(np.asarray(chosen.energy), np.asarray(chosen.gradient), num_steps, tol)
    return chosen.x


def _tell(energy: np.ndarray, gradient: np.ndarray, num_steps: int, tol: float) -> None:
    if not np.all(np.isfinite(energy)):
        raise FloatingPointError(
            "The energy is not finite at the end of any start. Check that it grows outside the "
            "data and that its network was trained without NaN."
        )
    worst = float(np.max(gradient, initial=0.0))
    if not worst <= tol:
        warnings.warn(
            f"The search for the mode stopped after num_steps={num_steps} with a gradient of "
            f"{worst:.1e} per dimension (tol={tol:.1e}); raise num_steps, or tol if that is close "
            "enough.",
            stacklevel=4,
        )
