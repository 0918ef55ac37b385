"""The loop of a run: chunk after chunk until the plan is done, or someone interrupts."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax

from numpyro_score._typing import PyTree
from numpyro_score.infer._draws import by_chain
from numpyro_score.infer._programs import Programs
from numpyro_score.infer._progress import Bar, Pace
from numpyro_score.infer._run_arguments import RunArguments
from numpyro_score.infer._upstream import Plan


class Position(NamedTuple):
    """How far a run has come: steps, kept draws per chain, and what went wrong on the way."""

    steps: int = 0
    kept: int = 0
    non_finite: int = 0
    divergent: int = 0


class Sink(Protocol):
    """Where chunks go."""

    def add(
        self, fields: dict[str, PyTree] | None, position: Position, states: list[PyTree]
    ) -> None:
        """Take the draws of a chunk (None in warm-up) and the states after it."""


class Sampling:
    """One run under way.

    :param states: states of the chains, one by one; or, ``batched``, of all of them as one.
    """

    def __init__(
        self,
        programs: Programs,
        arguments: RunArguments,
        plan: Plan,
        names: tuple[str, ...],
        states: list[PyTree],
        position: Position,
        *,
        num_chains: int,
        batched: bool,
    ) -> None:
        self.programs = programs
        self.arguments = arguments
        self.plan = plan
        self.names = names
        self.states = states
        self.position = position
        self.num_chains = num_chains
        self.batched = batched
        self.interrupted = False

    def advance(self, pace: Pace, bar: Bar, sink: Sink) -> None:
        """Take the steps that are left."""
        try:
            self._compile()
            capacity = self.programs.rows_per_chunk(self.states[0])
            pace.start()
            while self.position.steps < self.plan.num_steps:
                before = self.position
                num_steps, kept = self._next(pace.num_steps, capacity)
                self._chunk(num_steps, kept, bar, sink)
                pace.lap(num_steps)
                after = self.position
                bar.update(before.steps, after.steps, self.states, after[2:])
        except KeyboardInterrupt:
            self.interrupted = True

    def _compile(self) -> None:
        # A chunk of no steps: the first real one is then timed for what it does.
        if self.position.steps < self.plan.num_steps:
            self.programs.chunk(self.states[0], self.arguments, 0, False, 1)

    def _next(self, wanted: int, capacity: int) -> tuple[int, bool]:
        """Return the length of the next chunk, and whether its draws are kept."""
        plan, steps = self.plan, self.position.steps
        if steps < plan.start:
            end = plan.num_warmup if steps < plan.num_warmup <= plan.start else plan.start
            return min(wanted, end - steps), False
        groups = max(1, min(wanted // plan.thinning, capacity))
        return min(groups * plan.thinning, plan.num_steps - steps), True

    def _chunk(self, num_steps: int, kept: bool, bar: Bar, sink: Sink) -> None:
        thinning = self.plan.thinning
        outcomes = [
            self.programs.chunk(state, self.arguments, num_steps, kept, thinning)
            for state in self.states
        ]
        states, rows, tallies = map(list, zip(*outcomes, strict=True))
        count = num_steps // thinning if kept else 0
        fields = self._fields(rows, count) if kept else None
        old = self.position
        position = Position(
            old.steps + num_steps,
            old.kept + count,
            old.non_finite + sum(int(tally.non_finite) for tally in tallies),
            old.divergent + sum(int(tally.divergent) for tally in tallies),
        )
        # All of it has been computed: an interrupt before this line leaves the last chunk intact.
        sink.add(fields, position, states)
        self.states, self.position = states, position
        if kept and bar.enabled:
            draws = by_chain([row[0] for row in rows], count, self.num_chains, self.batched)
            bar.add_draws(draws)

    def _fields(self, rows: list[tuple[PyTree, ...]], count: int) -> dict[str, PyTree]:
        draws = [self.programs.postprocess(row[0], count, self.arguments) for row in rows]
        columns = [draws, *([row[i] for row in rows] for i in range(1, len(self.names)))]
        joined = [by_chain(column, count, self.num_chains, self.batched) for column in columns]
        return dict(zip(self.names, joined, strict=True))


def stack_states(states: list[PyTree], num_chains: int, batched: bool) -> PyTree:
    """Return the states as NumPyro keeps them: one chain without an axis, or all as one."""
    if batched or num_chains == 1:
        return states[0]
    return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *states)


def part_states(state: PyTree, num_chains: int, batched: bool) -> list[PyTree]:
    """Undo :func:`stack_states`."""
    if batched or num_chains == 1:
        return [state]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(num_chains)]
