"""What is timed: something that takes its chains some steps further, and returns the draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt
from time import perf_counter
from typing import Any, NamedTuple

import jax
from numpyro import infer as theirs
from numpyro.infer.mcmc import MCMCKernel
from targets import Target

from numpyro_score import infer as ours

FLOOR = "value_and_grad"
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
    - **judged** - whether the draws are worth an ESS; a bare loop is timed only.
    - **bare** - name of the bare loop of the same kernel, where there is one.
    """

    name: str
    advance: Callable[[Any], tuple[Any, Draws | None]]
    state: Any
    size: Size
    compile_seconds: float
    target_accept_prob: float | None = None
    warmup_seconds: float | None = None
    judged: bool = True
    bare: str | None = None

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
    """Return the compiled function, and by how many seconds its first call is longer."""
    program = jax.jit(advance)
    seconds = []
    for _ in range(2):
        start = perf_counter()
        jax.block_until_ready(program(state))
        seconds.append(perf_counter() - start)
    return program, seconds[0] - seconds[1]


def _make_mcmc(cls: type[theirs.MCMC], kernel: MCMCKernel, size: Size, chain_method: Any) -> Any:
    return cls(
        kernel,
        num_warmup=size.warmup,
        num_samples=size.steps,
        num_chains=size.chains,
        chain_method=chain_method,
        progress_bar=False,
    )


def _go_on(mcmc: theirs.MCMC, state: Any, args: tuple[Any, ...]) -> tuple[Any, Draws]:
    """Go on from ``state``; return where that leads, and the draws."""
    mcmc.post_warmup_state = state
    fields = ("accept_prob",) if hasattr(state, "accept_prob") else ()
    mcmc.run(state.rng_key, *args, extra_fields=fields)
    accept_prob = mcmc.get_extra_fields(group_by_chain=True).get("accept_prob")
    return mcmc.last_state, Draws(mcmc.get_samples(group_by_chain=True), accept_prob)


def in_our_mcmc(
    name: str,
    kernel: MCMCKernel,
    target: Target,
    size: Size,
    target_accept_prob: float | None,
    key: jax.Array,
    seconds: float,
) -> Contestant:
    """Return a kernel inside this package's MCMC, as a user runs it, warmed up.

    A warm-up and a run are taken twice: the first compiles. Runs are then made as long as asked
    for: another number of draws compiles nothing.
    """
    mcmc = _make_mcmc(ours.MCMC, kernel, size, "vectorized")

    def warm_up() -> float:
        start = perf_counter()
        mcmc.post_warmup_state = None
        mcmc.warmup(key, *target.args)
        jax.block_until_ready(mcmc.post_warmup_state)
        return perf_counter() - start

    first, warmup_seconds = warm_up(), warm_up()

    def advance(state: Any) -> tuple[Any, Draws]:
        return _go_on(mcmc, state, target.args)

    contestant = Contestant(
        name, advance, mcmc.post_warmup_state, size, 0.0, target_accept_prob, warmup_seconds
    )
    first_run, run = contestant.run(1)[0], contestant.run(1)[0]
    contestant.compile_seconds = first - warmup_seconds + first_run - run
    mcmc.num_samples = ceil(size.steps * max(1.0, seconds / run))
    contestant.size = size._replace(steps=mcmc.num_samples)
    return contestant


def in_numpyro_mcmc(
    name: str,
    kernel: MCMCKernel,
    target: Target,
    size: Size,
    target_accept_prob: float | None,
    key: jax.Array,
    one_key: bool = False,
) -> Contestant:
    """Return a kernel inside NumPyro's MCMC, warmed up.

    That compiles anew at each `run`, so `run` itself is compiled here, once, as NumPyro's
    documentation does under `pmap`: the best that a user can have. The same program does the
    warm-up: NumPyro's kernels know by their own counter when it is over.

    :param one_key: whether the kernel cannot take the keys of several chains.
    """
    # A kernel that takes one key runs with several chains under a transform.
    transform = jax.vmap if one_key else "vectorized"
    mcmc = _make_mcmc(theirs.MCMC, kernel, size, transform)

    def advance(state: Any) -> tuple[Any, Draws]:
        return _go_on(mcmc, state, target.args)

    def init(key: jax.Array) -> Any:
        return kernel.init(key, size.warmup, None, target.args, {})

    if size.chains > 1:
        key = jax.random.split(key, size.chains)
        init = jax.vmap(init) if one_key else init
    state = init(key)
    program, seconds = compile_program(advance, state)
    contestant = Contestant(name, program, state, size, seconds, target_accept_prob)
    contestant.warmup_seconds, _ = contestant.run(size.warmup // size.steps)
    return contestant
