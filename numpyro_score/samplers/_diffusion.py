"""What the samplers of diffusions share: a walk down a grid of times, and a look at what it met."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array, PyTree

_NUM_UPDATES = 50


class Times(NamedTuple):
    """Where a step begins and ends."""

    now: Array
    next: Array


class Stepper(Protocol):
    """One method: a step of all particles from one time to the next."""

    def init(self, x: Array) -> PyTree:
        """Return what the first step gets as ``memory``."""

    def step(
        self, rng_key: Array, x: Array, memory: PyTree, times: Times, score: Callable[..., Array]
    ) -> tuple[Array, PyTree]:
        """Return particles at ``times.next``, and what the next step gets.

        :param score: of all particles, ``score(x, t)``.
        """


class Memoryless:
    """A method whose steps take nothing from the one before."""

    def init(self, x: Array) -> tuple:
        """Return nothing."""
        return ()


def walk(
    rng_key: Array,
    stepper: Stepper,
    score: Callable[[Array, Array], Array],
    x: Array,
    times: Array,
    progress_bar: bool,
) -> Array:
    """Return particles that started as ``x`` at ``times[0]``, at ``times[-1]``.

    :param score: of one event, ``score(x, t)``.
    :param x: shape ``(n, *event_shape)``.
    :raises FloatingPointError: particles are no longer finite; the message says when and how many.
        Not under ``jit``, where they come out as they are.
    """
    return walk_and_remember(rng_key, stepper, score, x, times, progress_bar)[0]


def walk_and_remember(
    rng_key: Array,
    stepper: Stepper,
    score: Callable[[Array, Array], Array],
    x: Array,
    times: Array,
    progress_bar: bool,
) -> tuple[Array, PyTree]:
    """Return what :func:`walk` does, and the memory of the last step."""
    batched = jax.vmap(score, (0, None))
    num_steps = len(times) - 1
    keys = jax.random.split(rng_key, num_steps)
    size = -(-num_steps // _NUM_UPDATES) if progress_bar else num_steps
    run = jax.jit(partial(_advance, stepper, batched))
    carry = jax.jit(lambda x: (x, stepper.init(x)))(x)
    with tqdm(total=num_steps, disable=not progress_bar, unit="step") as bar:
        for first in range(0, num_steps, size):
            part = slice(first, min(first + size, num_steps))
            carry, lost = run(carry, Times(times[:-1][part], times[1:][part]), keys[part])
            # What is traced may be the score alone.
            if is_concrete(lost):
                _refuse_lost(np.asarray(lost), np.asarray(times[1:][part]))
            bar.update(part.stop - part.start)
    return carry


def _advance(
    stepper: Stepper,
    score: Callable[..., Array],
    carry: tuple[Array, PyTree],
    times: Times,
    keys: Any,
) -> tuple[tuple[Array, PyTree], Array]:
    """Take steps; the second result is the fraction of particles that each of them lost."""

    def step(carry: tuple[Array, PyTree], args: tuple[Times, Array]) -> tuple:
        x, memory = stepper.step(args[1], *carry, args[0], score)
        lost = jnp.any(~jnp.isfinite(x.reshape(len(x), -1)), axis=1)
        return (x, memory), jnp.mean(lost)

    return jax.lax.scan(step, carry, (times, keys))


def _refuse_lost(lost: np.ndarray, times: np.ndarray) -> None:
    if not lost.any():
        return
    first = int(np.flatnonzero(lost)[0])
    raise FloatingPointError(
        f"{lost[first]:.1%} of the particles are no longer finite after the step to t = "
        f"{times[first]:.4g}: the score is NaN or too large where they are. Take more steps, or a "
        "diffusion whose first noise is no larger than the one that the score was trained with."
    )


def check_events(x: Array) -> None:
    """Refuse anything but floating-point events with a leading axis."""
    if jnp.ndim(x) < 2 or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise ValueError(
            "x must be floating-point particles of shape (n, *event_shape) with at least one event "
            f"axis, got {jnp.result_type(x)} of shape {jnp.shape(x)}."
        )
