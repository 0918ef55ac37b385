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

import jax
from numpyro.infer import MCMC, BarkerMH
from numpyro.infer.mcmc import MCMCKernel
from targets import Target

FLOOR = "value_and_grad"
LOOP = "the same inside MCMC"
LANGEVIN_ACCEPTANCE = 0.574


class Draws(NamedTuple):
    """Positions, one leading axis of chains and one of draws, and acceptance where there is one."""

    positions: Any
    accept_prob: jax.Array | None


class Size(NamedTuple):
    """Chains, the steps of one call of a program, and of warm-up."""

    chains: int
    steps: int
    warmup: int


@dataclass
class Contestant:
    """A compiled program and where its chains are.

    - **advance** - from a state to ``(state, Draws)``, ``(state, None)`` for the floor.
    - **target_accept_prob** - the acceptance that is aimed at; None where nothing is tested.
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


def compile_program(
    advance: Callable[[Any], Any], state: Any
) -> tuple[Callable[[Any], Any], float]:
    start = perf_counter()
    compiled = jax.jit(advance).lower(state).compile()
    return compiled, perf_counter() - start


def make_mcmc(kernel: MCMCKernel, size: Size, chain_method: Any) -> MCMC:
    """Return NumPyro's MCMC for calls of that size."""
    return MCMC(
        kernel,
        num_warmup=size.warmup,
        num_samples=size.steps,
        num_chains=size.chains,
        chain_method=chain_method,
        progress_bar=False,
    )


def run_mcmc(mcmc: MCMC, state: Any, args: tuple[Any, ...]) -> tuple[Any, Draws]:
    """Go on from ``state``; return where that leads, and the draws."""
    mcmc.post_warmup_state = state
    fields = ("accept_prob",) if hasattr(state, "accept_prob") else ()
    mcmc.run(state.rng_key, *args, extra_fields=fields)
    accept_prob = mcmc.get_extra_fields(group_by_chain=True).get("accept_prob")
    return mcmc.last_state, Draws(mcmc.get_samples(group_by_chain=True), accept_prob)


def in_mcmc(
    name: str, kernel: MCMCKernel, target: Target, size: Size, target_accept_prob: float | None
) -> Contestant:
    """Return a kernel inside NumPyro's MCMC, warmed up."""
    # BarkerMH takes one key only; NumPyro runs it with several chains under a transform.
    transform = jax.vmap if isinstance(kernel, BarkerMH) else "vectorized"
    mcmc = make_mcmc(kernel, size, transform)

    def advance(state: Any) -> tuple[Any, Draws]:
        return run_mcmc(mcmc, state, target.args)

    def init(key: jax.Array) -> Any:
        return kernel.init(key, size.warmup, None, target.args, {})

    key = jax.random.key(1)
    if size.chains > 1:
        key = jax.random.split(key, size.chains)
        init = jax.vmap(init) if transform is jax.vmap else init
    # Some kernels are tuned at initialization, so its time counts as warm-up.
    initialize, _ = compile_program(init, key)
    start = perf_counter()
    state = jax.block_until_ready(initialize(key))
    init_seconds = perf_counter() - start
    program, seconds = compile_program(advance, state)
    contestant = Contestant(name, program, state, size, seconds, target_accept_prob)
    warmup_seconds, _ = contestant.run(size.warmup // size.steps)
    contestant.warmup_seconds = init_seconds + warmup_seconds
    return contestant
