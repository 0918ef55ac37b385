"""What our kernels are held against: BlackJAX without anything around it, and one gradient.

A bare loop has the step size and the metric of each chain of the kernel that it is held against,
in coordinates in which that metric is the identity, and the same draws to collect.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from blackjax.base import SamplingAlgorithm
from blackjax.mcmc import dynamic_hmc
from blackjax.mcmc.adjusted_mclmc_dynamic import make_random_trajectory_length_fn
from blackjax.mcmc.diffusions import DiffusionState, overdamped_langevin
from contestants import FLOOR, Contestant, Draws, compile_program
from jax.flatten_util import ravel_pytree
from targets import Target

LogDensity = Callable[[jax.Array], jax.Array]


def _ghmc(log_density: LogDensity, step_size: jax.Array, identity: jax.Array) -> Any:
    alpha = -jnp.expm1(-2 * step_size)
    return blackjax.ghmc(log_density, step_size, identity, alpha, alpha / 2)


def _hmc(log_density: LogDensity, step_size: jax.Array, identity: jax.Array) -> Any:
    num_steps = jnp.clip(0.5 * pi / step_size, 1, 1024).astype(int)
    return blackjax.hmc(log_density, step_size, identity, num_steps)


def _ula(log_density: LogDensity, step_size: jax.Array, identity: jax.Array) -> Any:
    """BlackJAX has the diffusion, and no algorithm around it."""
    evaluate = jax.value_and_grad(log_density)
    step = overdamped_langevin(evaluate)
    return SamplingAlgorithm(
        lambda position, _: DiffusionState(position, *evaluate(position)),
        lambda key, state: (step(key, state, step_size), None),
    )


def _chees(
    log_density: LogDensity, step_size: jax.Array, identity: jax.Array, length: jax.Array
) -> Any:
    """BlackJAX's loop after its `chees_adaptation`: the jitter is a sequence, all chains share."""
    kernel = dynamic_hmc.build_kernel(
        next_random_arg_fn=lambda i: i + 1,
        integration_steps_fn=lambda i: _whole_steps(
            dynamic_hmc.halton_sequence(i % 1024) * length / step_size
        ),
    )
    return SamplingAlgorithm(
        lambda position, _: dynamic_hmc.init(position, log_density, jnp.zeros((), int)),
        lambda key, state: kernel(key, state, log_density, step_size, identity),
    )


def _whole_steps(number: jax.Array) -> jax.Array:
    return jnp.clip(jnp.ceil(number), 1, 1024).astype(int)


# By the class of our kernel.
_TUNED_BY_STEPS: dict[str, Callable[..., Any]] = {
    "MALA": lambda log_density, step_size, _: blackjax.mala(log_density, step_size),
    "ULA": _ula,
    "Barker": lambda log_density, step_size, _: blackjax.barker(log_density, step_size),
    "GHMC": _ghmc,
    "HMC": _hmc,
    "ChEES": _chees,
    "NUTS": blackjax.nuts,
}


def _mclmc(log_density: LogDensity, tuning: Any) -> Any:
    return blackjax.mclmc(
        log_density,
        tuning.L,
        tuning.step_size,
        inverse_mass_matrix=tuning.inverse_mass_matrix,
    )


def _adjusted_mclmc(log_density: LogDensity, tuning: Any) -> Any:
    return blackjax.adjusted_mclmc_dynamic(
        log_density,
        tuning.step_size,
        inverse_mass_matrix=tuning.inverse_mass_matrix,
        integration_steps_fn=make_random_trajectory_length_fn(True),
        integration_steps_params=(tuning.L / tuning.step_size,),
    )


_TUNED_AT_ONCE = {"MCLMC": _mclmc, "AdjustedMCLMC": _adjusted_mclmc}


def bare(target: Target, ours: Contestant, kernel: str, pooled: bool) -> Contestant:
    """Return BlackJAX's documented loop for the kernel of that class, tuned as ours is."""
    chains, steps, _ = ours.size
    flatten, unravel = _flattening(ours)
    positions = flatten(ours.state.z)
    size = positions.shape[-1]
    tuning = ours.state.adapt_state
    potential_fn = target.potential_fn()

    def algorithm(tuning: Any) -> Any:
        if kernel in _TUNED_AT_ONCE:
            return _TUNED_AT_ONCE[kernel](lambda z: -potential_fn(unravel(z)), tuning)
        place = tuning.whitening.placer(jnp.zeros(size), remember=False)
        return _TUNED_BY_STEPS[kernel](
            lambda v: -potential_fn(unravel(place(v))), tuning.step_size, jnp.ones(size), *length
        )

    def init(tuning: Any, z: jax.Array, key: jax.Array) -> Any:
        if kernel in _TUNED_BY_STEPS:
            z = tuning.whitening.whiten(z[None])[0]
        return algorithm(tuning).init(z, key)

    def one_step(tuning: Any, state: Any, key: jax.Array) -> tuple[Any, Draws]:
        state, info = algorithm(tuning).step(key, state)
        return state, Draws(state.position, getattr(info, "acceptance_rate", None))

    length: tuple[jax.Array, ...] = ()
    if kernel in _TUNED_BY_STEPS:
        if tuning.length_state is not None:
            length = (tuning.length_state.length,)
        tuning = _Tuning(tuning.step_size, tuning.whitening)
    keys = jax.random.key(3)
    if chains > 1:
        axes = _Tuning(0, None) if pooled else 0
        init, one_step = jax.vmap(init, (axes, 0, 0)), jax.vmap(one_step, (axes, 0, 0))
        keys = jax.random.split(keys, chains)

    def advance(carry: tuple[jax.Array, Any]) -> tuple[Any, Draws]:
        key, state = carry
        key, loop_key = jax.random.split(key)
        keys = jax.random.split(loop_key, (steps, chains) if chains > 1 else steps)
        state, draws = jax.lax.scan(lambda s, k: one_step(tuning, s, k), state, keys)
        return (key, state), jax.tree.map(chains_first, draws)

    def chains_first(draws: jax.Array) -> jax.Array:
        return jnp.swapaxes(draws, 0, 1) if chains > 1 else draws[None]

    start = (jax.random.key(2), jax.jit(init)(tuning, positions, keys))
    program, seconds = compile_program(advance, start)
    return Contestant(f"  {ours.name}, bare", program, start, ours.size, seconds, judged=False)


class _Tuning(NamedTuple):
    """What a bare loop takes over from warm-up."""

    step_size: Any
    whitening: Any


def _flattening(ours: Contestant) -> tuple[Callable[[Any], jax.Array], Callable[[jax.Array], Any]]:
    """Return maps from the positions of all chains to rows, and from one row to a position."""
    if ours.size.chains == 1:
        return lambda z: ravel_pytree(z)[0], ravel_pytree(ours.state.z)[1]
    one = jax.tree.map(lambda leaf: leaf[0], ours.state.z)
    return jax.vmap(lambda z: ravel_pytree(z)[0]), ravel_pytree(one)[1]


def narrow_step_size(ours: Contestant) -> jax.Array:
    """Return the step size in the identity's metric that fits the narrowest direction."""
    adapt_state = ours.state.adapt_state
    narrowest = jnp.min(adapt_state.inverse_mass_matrix)
    return jnp.median(adapt_state.step_size) * narrowest


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
    return Contestant(FLOOR, program, state, ours.size, seconds, judged=False)
