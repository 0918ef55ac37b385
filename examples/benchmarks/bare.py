"""What our MALA is held against: BlackJAX without anything around it, and one gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from contestants import (
    FLOOR,
    LANGEVIN_ACCEPTANCE,
    LOOP,
    Contestant,
    Draws,
    compile_program,
    make_mcmc,
    run_mcmc,
)
from jax.flatten_util import ravel_pytree
from numpyro.infer.mcmc import MCMCKernel
from targets import Target


def _whitened_mala(
    target: Target, ours: Contestant, whiten: bool
) -> tuple[blackjax.SamplingAlgorithm, Any]:
    """Return BlackJAX's mala with the step size, and on request the metric, of our kernel.

    And where our chains are, in its coordinates.
    """
    step_size, scale = _adapted(ours)
    position = ours.state.z
    if whiten:
        position = jax.tree.map(jnp.divide, position, scale)
    else:
        # The identity must fit the narrowest direction.
        step_size = step_size * ravel_pytree(scale)[0].min() ** 2
        scale = jax.tree.map(jnp.ones_like, scale)
    potential_fn = target.potential_fn()

    def logdensity_fn(position: Any) -> jax.Array:
        return -potential_fn(jax.tree.map(jnp.multiply, position, scale) if whiten else position)

    return blackjax.mala(logdensity_fn, step_size), position


def bare(name: str, target: Target, ours: Contestant, whiten: bool) -> Contestant:
    """BlackJAX's documented loop."""
    mala, position = _whitened_mala(target, ours, whiten)
    chains, steps, _ = ours.size
    several = jax.vmap if chains > 1 else (lambda fn: fn)
    step = several(mala.step)

    def one_step(state: Any, key: jax.Array) -> tuple[Any, Draws]:
        state, info = step(key, state)
        return state, Draws(state.position, info.acceptance_rate)

    def advance(carry: tuple[jax.Array, Any]) -> tuple[Any, Draws]:
        key, state = carry
        key, loop_key = jax.random.split(key)
        keys = jax.random.split(loop_key, (steps, chains) if chains > 1 else steps)
        state, draws = jax.lax.scan(one_step, state, keys)
        return (key, state), jax.tree.map(chains_first, draws)

    def chains_first(draws: jax.Array) -> jax.Array:
        return jnp.swapaxes(draws, 0, 1) if chains > 1 else draws[None]

    state = (jax.random.key(2), several(mala.init)(position))
    program, seconds = compile_program(advance, state)
    return Contestant(name, program, state, ours.size, seconds, LANGEVIN_ACCEPTANCE)


def loop(target: Target, ours: Contestant) -> Contestant:
    """BlackJAX's mala in NumPyro's MCMC and nothing else: what that loop costs any kernel."""
    mala, position = _whitened_mala(target, ours, whiten=True)
    several = jax.vmap if ours.size.chains > 1 else (lambda fn: fn)
    kernel = _PlainKernel(several(mala.step), several(jax.random.split))
    mcmc = make_mcmc(kernel, ours.size, "vectorized")

    def advance(state: _PlainState) -> tuple[_PlainState, Draws]:
        return run_mcmc(mcmc, state, ())

    mala_state = several(mala.init)(position)
    accept_prob = jnp.zeros_like(mala_state.logdensity)
    steps = jnp.asarray(ours.size.warmup)
    state = _PlainState(steps, position, accept_prob, mala_state, ours.state.rng_key)
    program, seconds = compile_program(advance, state)
    return Contestant(LOOP, program, state, ours.size, seconds, LANGEVIN_ACCEPTANCE)


class _PlainState(NamedTuple):
    i: jax.Array
    z: Any
    accept_prob: jax.Array
    mala_state: Any
    rng_key: jax.Array


class _PlainKernel(MCMCKernel):
    """The least that NumPyro's MCMC runs."""

    sample_field = "z"
    default_fields = ("z",)
    model = None
    _sample_fn = True  # initialized

    def __init__(self, step: Callable[..., Any], split: Callable[..., Any]) -> None:
        self._step, self._split = step, split

    def init(self, *args: Any) -> None:
        raise NotImplementedError

    def sample(self, state: _PlainState, model_args: Any, model_kwargs: Any) -> _PlainState:
        rng_key, step_key = jnp.moveaxis(self._split(state.rng_key), -1, 0)
        mala_state, info = self._step(step_key, state.mala_state)
        return _PlainState(
            state.i + 1, mala_state.position, info.acceptance_rate, mala_state, rng_key
        )


def _adapted(ours: Contestant) -> tuple[jax.Array, Any]:
    """Return what our chains learned: the median step size, and the scales as z is shaped."""
    adapt_state, z = ours.state.adapt_state, ours.state.z
    if ours.size.chains == 1:
        return adapt_state.step_size, ravel_pytree(z)[1](jnp.sqrt(adapt_state.inverse_mass_matrix))
    scale = jnp.exp(0.5 * jnp.log(adapt_state.inverse_mass_matrix).mean(0))
    one = jax.tree.map(lambda leaf: leaf[0], z)
    return jnp.median(adapt_state.step_size), ravel_pytree(one)[1](scale)


def floor(target: Target, ours: Contestant) -> Contestant:
    """One value and gradient a step, and nothing else."""
    value_and_grad = jax.value_and_grad(target.potential_fn())
    if ours.size.chains > 1:
        value_and_grad = jax.vmap(value_and_grad)

    def advance(carry: tuple[jax.Array, Any, jax.Array]) -> tuple[Any, None]:
        nothing, z, _ = carry

        def evaluate(carry: tuple[Any, jax.Array], _: None) -> tuple[Any, None]:
            z, total = carry
            value, gradient = value_and_grad(z)
            # A zero that the compiler cannot see keeps the evaluation in the loop.
            z = jax.tree.map(lambda z, g: z + nothing * g, z, gradient)
            return (z, total + value), None

        z, total = jax.lax.scan(evaluate, carry[1:], length=ours.size.steps)[0]
        return (nothing, z, total), None

    state = (jnp.zeros(()), ours.state.z, jnp.zeros_like(ours.state.potential_energy))
    program, seconds = compile_program(advance, state)
    return Contestant(FLOOR, program, state, ours.size, seconds)
