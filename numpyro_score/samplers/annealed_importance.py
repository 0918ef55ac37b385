"""Annealed importance sampling: the normalizer of a density known up to one.

Neal (2001), "Annealed importance sampling", Statistics and Computing 11. A particle that is drawn
from a start q (a standard normal) passes through densities q^{1-β} p̃^β for β from 0 to 1, moved at
each by steps that leave it invariant. The mean of its weights Π (p̃ / q)^{Δβ}, each taken before a
move, is Z = ∫ p̃ without bias, however badly the moves mix; how badly shows in the variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp

from numpyro_score._typing import Array

_TARGET_ACCEPT_PROB = 0.574
_FIRST_STEP_SIZE = 0.5
_GAIN = 0.3


class Annealed(NamedTuple):
    """Where particles end, and their log weights, whose mean weight estimates Z.

    - **positions** - shape ``(num_particles, d)``; draws of the density once they are resampled by
      their weights.
    - **log_weights** - shape ``(num_particles,)``.
    """

    positions: Array
    log_weights: Array


class Start(NamedTuple):
    """Where particles start: a density that is normalized, and that can be drawn from.

    - **sample** - ``sample(rng_key, num_particles)``, of shape ``(num_particles, d)``.
    - **log_prob** - of one of them; where it is not that of the draws, Z is wrong.
    """

    sample: Callable[[Array, int], Array]
    log_prob: Callable[[Array], Array]


def annealed_importance(
    rng_key: Array,
    logdensity_fn: Callable[[Array], Array],
    size: int,
    *,
    num_particles: int,
    num_temperatures: int,
    num_moves: int = 1,
    start: Start | None = None,
) -> Annealed:
    """Anneal particles from ``start`` to ``logdensity_fn``, moved by MALA.

    A pilot run of a tenth of the particles tunes a step size for each temperature; its particles
    are not used otherwise, so that the estimate stays unbiased.

    :param rng_key: a random key.
    :param logdensity_fn: log density of one vector of ``size`` numbers, up to a constant, for
        which the start is a fair first guess.
    :param num_temperatures: steps from β = 0 to 1.
    :param num_moves: MALA steps at each β.
    :param start: where particles start; by default at a standard normal.

    >>> import jax, jax.numpy as jnp
    >>> narrow = lambda v: -0.5 * jnp.sum((v / 0.5) ** 2)
    >>> annealed = annealed_importance(
    ...     jax.random.key(0), narrow, 2, num_particles=1000, num_temperatures=50
    ... )
    >>> log_z = jax.nn.logsumexp(annealed.log_weights) - jnp.log(1000.0)
    >>> bool(jnp.abs(log_z - jnp.log(2 * jnp.pi * 0.5**2)) < 0.05)
    True
    """
    pilot_key, key = jax.random.split(rng_key)
    betas = jnp.linspace(0.0, 1.0, num_temperatures + 1)
    start = _standard_normal(size) if start is None else start
    anneal = _Annealing(logdensity_fn, start, betas, num_moves)
    step_sizes = anneal.tune(pilot_key, max(2, num_particles // 10))
    return anneal.run(key, num_particles, step_sizes)


class _Annealing(NamedTuple):
    logdensity_fn: Callable[[Array], Array]
    start: Start
    betas: Array
    num_moves: int

    def tune(self, rng_key: Array, num_particles: int) -> Array:
        """Return a step size per temperature, which follows the mean acceptance so far."""

        def level(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple:
            positions, log_step_size = carry
            key, beta = inputs
            positions, accept_prob = self._move(key, positions, beta, jnp.exp(log_step_size))
            log_step_size += _GAIN * (accept_prob - _TARGET_ACCEPT_PROB)
            return (positions, log_step_size), jnp.exp(log_step_size)

        start_key, move_key = jax.random.split(rng_key)
        start = self.start.sample(start_key, num_particles)
        keys = jax.random.split(move_key, len(self.betas) - 1)
        # A start of another scale than 1 would spend its levels on finding a step size.
        log_variance = jnp.mean(jnp.log(jnp.var(start, axis=0)))
        carry = (start, jnp.log(_FIRST_STEP_SIZE) + log_variance)
        return jax.lax.scan(level, carry, (keys, self.betas[1:]))[1]

    def run(self, rng_key: Array, num_particles: int, step_sizes: Array) -> Annealed:
        """Return weighted particles."""

        def level(carry: Annealed, inputs: tuple[Array, Array, Array, Array]) -> tuple:
            key, step_size, before, beta = inputs
            ratio = jax.vmap(self._log_ratio)(carry.positions)
            positions, _ = self._move(key, carry.positions, beta, step_size)
            return Annealed(positions, carry.log_weights + (beta - before) * ratio), None

        start_key, move_key = jax.random.split(rng_key)
        start = self.start.sample(start_key, num_particles)
        keys = jax.random.split(move_key, len(step_sizes))
        inputs = (keys, step_sizes, self.betas[:-1], self.betas[1:])
        return jax.lax.scan(level, Annealed(start, jnp.zeros(num_particles)), inputs)[0]

    def _log_ratio(self, v: Array) -> Array:
        return self.logdensity_fn(v) - self.start.log_prob(v)

    def _move(
        self, rng_key: Array, positions: Array, beta: Array, step_size: Array
    ) -> tuple[Array, Array]:
        kernel = blackjax.mala.build_kernel()

        def logdensity_fn(v: Array) -> Array:
            return (1 - beta) * self.start.log_prob(v) + beta * self.logdensity_fn(v)

        def move(key: Array, position: Array) -> tuple[Array, Array]:
            def step(state, key):
                state, info = kernel(key, state, logdensity_fn, step_size)
                return state, info.acceptance_rate

            state = blackjax.mala.init(position, logdensity_fn)
            state, accept_prob = jax.lax.scan(step, state, jax.random.split(key, self.num_moves))
            return state.position, accept_prob.mean()

        positions, accept_prob = jax.vmap(move)(
            jax.random.split(rng_key, len(positions)), positions
        )
        return positions, accept_prob.mean()


def _log_normal(v: Array) -> Array:
    return -0.5 * jnp.sum(v**2, axis=-1) - 0.5 * v.shape[-1] * jnp.log(2 * jnp.pi)


def _standard_normal(size: int) -> Start:
    return Start(lambda key, num: jax.random.normal(key, (num, size)), _log_normal)
