"""The loop of a run: chunk after chunk until the plan is done, or someone interrupts."""

from __future__ import annotations

import warnings
from typing import ClassVar, Protocol

import jax
import numpy as np
from numpyro.util import find_stack_level

from numpyro_score._typing import PyTree
from numpyro_score.infer._aftermath import Departure, positions, stood_still, warn_of_run
from numpyro_score.infer._device_draws import few_rows, lanes_on_device
from numpyro_score.infer._draws import Position, by_chain
from numpyro_score.infer._programs import Programs
from numpyro_score.infer._progress import Bar, Pace
from numpyro_score.infer._run_arguments import RunArguments
from numpyro_score.infer._upstream import Plan


class Sink(Protocol):
    """Where chunks go, and so how far a run has come, whenever an interrupt comes."""

    #: Whether draws stay on the device that made them.
    on_device: ClassVar[bool]

    @property
    def position(self) -> Position:
        """How far the run has come."""

    @property
    def states(self) -> list[PyTree]:
        """Where the chains are."""

    def add(
        self, fields: dict[str, PyTree] | None, position: Position, states: list[PyTree]
    ) -> None:
        """Take the draws of a chunk (None in warm-up) and the states after it."""


class Sampling:
    """One run under way.

    :param sink: where draws go. Its states are of the chains, one by one; or, ``batched``, of all
        of them as one.
    """

    def __init__(
        self,
        programs: Programs,
        arguments: RunArguments,
        plan: Plan,
        names: tuple[str, ...],
        sink: Sink,
        *,
        num_chains: int,
        batched: bool,
    ) -> None:
        self.programs = programs
        self.arguments = arguments
        self.plan = plan
        self.names = names
        self.sink = sink
        self.num_chains = num_chains
        self.batched = batched
        self.interrupted = False
        self._departure: Departure | None = None

    @property
    def position(self) -> Position:
        """How far the run has come."""
        return self.sink.position

    @property
    def states(self) -> list[PyTree]:
        """Where the chains are."""
        return self.sink.states

    def advance(self, pace: Pace, bar: Bar) -> None:
        """Take the steps that are left."""
        try:
            self._compile()
            capacity = self.programs.rows_per_chunk(self.states[0])
            pace.start()
            while self.position.steps < self.plan.num_steps:
                before = self.position
                num_steps, kept = self._next(pace.num_steps, capacity)
                if kept and self._departure is None:
                    self._departure = Departure(before.steps, self._positions())
                self._chunk(num_steps, kept, bar)
                pace.lap(num_steps)
                self.programs.steps_per_chunk = pace.num_steps
                after = self.position
                bar.update(before.steps, after.steps, self.states, after[2:])
        except KeyboardInterrupt:
            self.interrupted = True

    def warn(self, last_state: PyTree) -> None:
        """Say what there is of what was asked for, and what is wrong with it.

        :param last_state: the states as the run keeps them.
        """
        if self.interrupted:
            warnings.warn(
                f"interrupted after step {self.position.steps} of {self.plan.num_steps}: "
                f"{self.position.kept} of {self.plan.num_kept} draws per chain are kept.",
                stacklevel=find_stack_level(),
            )
        if self._departure is not None:
            still = stood_still(self._departure, self.position.steps, self._positions())
            warn_of_run(self.programs.kernel, last_state, still)

    def _positions(self) -> np.ndarray:
        return positions(self.programs.kernel, self.states, self.batched)

    def _compile(self) -> None:
        # A chunk of no steps: the first real one is then timed for what it does.
        if self.position.steps < self.plan.num_steps and self.programs.steps_per_chunk is None:
            self.programs.chunk(self.states[0], self.arguments, 0, False, 1)

    def _next(self, wanted: int, capacity: int) -> tuple[int, bool]:
        """Return the length of the next chunk, and whether its draws are kept."""
        plan, steps = self.plan, self.position.steps
        if steps < plan.start:
            end = plan.num_warmup if steps < plan.num_warmup <= plan.start else plan.start
            return min(wanted, end - steps), False
        groups = max(1, min(wanted // plan.thinning, capacity))
        return min(groups * plan.thinning, plan.num_steps - steps), True

    def _chunk(self, num_steps: int, kept: bool, bar: Bar) -> None:
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
        self.sink.add(fields, position, states)
        if kept and bar.enabled:
            bar.add_draws(self._unconstrained([row[0] for row in rows], count))

    def _fields(self, rows: list[tuple[PyTree, ...]], count: int) -> dict[str, PyTree]:
        lanes = [self.programs.postprocess(row, count, self.arguments) for row in rows]
        if self.sink.on_device:
            fields = lanes_on_device(lanes, self.batched)
        else:
            fields = by_chain(lanes, count, self.batched)
        return dict(zip(self.names, fields, strict=True))

    def _unconstrained(self, rows: list[PyTree], count: int) -> PyTree:
        if self.sink.on_device:
            rows, count = few_rows(rows, count)
        if self.batched:
            rows = [jax.tree.map(lambda x: np.swapaxes(np.asarray(x)[:count], 0, 1), rows[0])]
        return by_chain(rows, count, self.batched)


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
