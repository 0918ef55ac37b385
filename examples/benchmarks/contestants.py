"""What is timed: compiled programs that take a state some steps further and return the draws.

NumPyro's MCMC compiles anew at each `run`, so `run` itself is compiled here, once, as NumPyro's
documentation does under `pmap`: the program is the one that `MCMC(progress_bar=False).run`
executes, collection and postprocessing included, and compile time stands apart. The same program
does the warm-up: NumPyro's kernels know by their own counter when it is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt
from time import perf_counter
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from numpyro.infer import HMC, MCMC, NUTS, BarkerMH
from numpyro.infer.mcmc import MCMCKernel
from targets import Target

from numpyro_score.infer import MALA

FLOOR = "value_and_grad"
BARE = "BlackJAX mala, bare scan"
BARE_DIAGONAL = "BlackJAX mala, diag metric"
LOOP = "the same inside MCMC"
OURS = "MALA"
OURS_DENSE = "MALA dense"
HMC_ONE = "HMC(1)"
_LANGEVIN_ACCEPTANCE = 0.574


class Draws(NamedTuple):
    """Positions, one leading axis of chains and one of draws, and acceptance probabilities."""

    positions: Any
    accept_prob: jax.Array


class Size(NamedTuple):
    """Chains, the steps of one call of a program, and of warm-up."""

    chains: int
    steps: int
    warmup: int


@dataclass
class Contestant:
    """A compiled program and where its chains are.

    - **advance** - from a state to ``(state, Draws)``, ``(state, None)`` for the floor.
    - **target_accept_prob** - the acceptance that is aimed at; None for the floor.
    - **warmup_seconds** - None for what has no warm-up of its own.
    """

    name: str
    advance: Callable[[Any], tuple[Any, Draws | None]]
    state: Any
    size: Size
    compile_seconds: float
    target_accept_prob: float | None = None
    warmup_seconds: float | None = None

    def run(self, calls: int) -> tuple[float, list[Draws]]:
        """Call the program so often; return the seconds until all is there, and all draws."""
        state, collected = self.state, []
        start = perf_counter()
        for _ in range(calls):
            state, draws = self.advance(state)
            collected.append(draws)
        jax.block_until_ready((state, collected))
        seconds = perf_counter() - start
        self.state = state
        return seconds, collected


def choose_size(chains: int, warmup: int) -> Size:
    """Return calls long enough that starting one is nothing, and short enough to count by."""
    steps = ceil(warmup / sqrt(chains))
    return Size(chains, steps, steps * ceil(warmup / steps))


def build(target: Target, chains: int, warmup: int) -> list[Contestant]:
    """Return all contestants, compiled and warmed up."""
    size = choose_size(chains, warmup)
    # A step of NUTS is a tree of many gradients, and its warm-up is over in fewer steps.
    fewer = choose_size(chains, warmup // 10)
    ours = _numpyro(OURS, MALA(target.model), target, size, _LANGEVIN_ACCEPTANCE)
    dense = MALA(target.model, dense_mass=True)
    # The default target of 0.8 is for long trajectories; one step is MALA and gets MALA's.
    hmc = HMC(
        target.model,
        num_steps=1,
        trajectory_length=None,
        target_accept_prob=_LANGEVIN_ACCEPTANCE,
    )
    return [
        _floor(target, ours),
        _bare(BARE, target, ours, whiten=False),
        _bare(BARE_DIAGONAL, target, ours, whiten=True),
        _loop(target, ours),
        ours,
        _numpyro(OURS_DENSE, dense, target, size, _LANGEVIN_ACCEPTANCE),
        _numpyro(HMC_ONE, hmc, target, size, _LANGEVIN_ACCEPTANCE),
        _numpyro("BarkerMH", BarkerMH(target.model), target, size, 0.4),
        _numpyro("NUTS", NUTS(target.model), target, fewer, 0.8),
    ]


def _compile(advance: Callable[[Any], Any], state: Any) -> tuple[Callable[[Any], Any], float]:
    start = perf_counter()
    compiled = jax.jit(advance).lower(state).compile()
    return compiled, perf_counter() - start


def _mcmc(kernel: MCMCKernel, size: Size, chain_method: Any) -> MCMC:
    return MCMC(
        kernel,
        num_warmup=size.warmup,
        num_samples=size.steps,
        num_chains=size.chains,
        chain_method=chain_method,
        progress_bar=False,
    )


def _run(mcmc: MCMC, state: Any, args: tuple[Any, ...]) -> tuple[Any, Draws]:
    mcmc.post_warmup_state = state
    mcmc.run(state.rng_key, *args, extra_fields=("accept_prob",))
    accept_prob = mcmc.get_extra_fields(group_by_chain=True)["accept_prob"]
    return mcmc.last_state, Draws(mcmc.get_samples(group_by_chain=True), accept_prob)


def _numpyro(
    name: str, kernel: MCMCKernel, target: Target, size: Size, target_accept_prob: float
) -> Contestant:
    # BarkerMH takes one key only; NumPyro runs it with several chains under a transform.
    transform = jax.vmap if isinstance(kernel, BarkerMH) else "vectorized"
    mcmc = _mcmc(kernel, size, transform)

    def advance(state: Any) -> tuple[Any, Draws]:
        return _run(mcmc, state, target.args)

    def init(key: jax.Array) -> Any:
        return kernel.init(key, size.warmup, None, target.args, {})

    key = jax.random.key(1)
    if size.chains > 1:
        key = jax.random.split(key, size.chains)
        init = jax.vmap(init) if transform is jax.vmap else init
    state = init(key)
    program, seconds = _compile(advance, state)
    contestant = Contestant(name, program, state, size, seconds, target_accept_prob)
    contestant.warmup_seconds, _ = contestant.run(size.warmup // size.steps)
    return contestant


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


def _bare(name: str, target: Target, ours: Contestant, whiten: bool) -> Contestant:
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
    program, seconds = _compile(advance, state)
    return Contestant(name, program, state, ours.size, seconds, _LANGEVIN_ACCEPTANCE)


def _loop(target: Target, ours: Contestant) -> Contestant:
    """BlackJAX's mala in NumPyro's MCMC and nothing else: what that loop costs any kernel."""
    mala, position = _whitened_mala(target, ours, whiten=True)
    several = jax.vmap if ours.size.chains > 1 else (lambda fn: fn)
    kernel = _PlainKernel(several(mala.step), several(jax.random.split))
    mcmc = _mcmc(kernel, ours.size, "vectorized")

    def advance(state: _PlainState) -> tuple[_PlainState, Draws]:
        return _run(mcmc, state, ())

    mala_state = several(mala.init)(position)
    accept_prob = jnp.zeros_like(mala_state.logdensity)
    steps = jnp.asarray(ours.size.warmup)
    state = _PlainState(steps, position, accept_prob, mala_state, ours.state.rng_key)
    program, seconds = _compile(advance, state)
    return Contestant(LOOP, program, state, ours.size, seconds, _LANGEVIN_ACCEPTANCE)


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


def _floor(target: Target, ours: Contestant) -> Contestant:
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
    program, seconds = _compile(advance, state)
    return Contestant(FLOOR, program, state, ours.size, seconds)
