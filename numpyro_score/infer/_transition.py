"""What a kernel is told before one step, and what it tells of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numpyro_score._typing import Array


class Origin(NamedTuple):
    """Where a step starts, in whitened coordinates: at v = 0.

    - **logdensity**, **score** - log density and its gradient there.
    - **carry** - fields of the state that belong to the kernel alone, such as a momentum, and
      those that it asked to see.
    """

    logdensity: Array
    score: Array
    carry: dict[str, Any]


class Transition(NamedTuple):
    """What a step did, in whitened coordinates.

    - **step** - displacement v, zero where the chain stayed.
    - **logdensity**, **score** - log density and its gradient where the chain is now.
    - **accept_prob** - of the Metropolis test, made or not; it drives the step size.
    - **moved** - whether the proposal was taken.
    - **diverging** - whether the proposal was hopeless, or not finite.
    - **statistic** - what the state reports of this step.
    - **carry** - the kernel's own fields after the step.
    - **seen** - what its warm-up looks at besides, and nobody keeps.
    """

    step: Array
    logdensity: Array
    score: Array
    accept_prob: Array
    moved: Array
    diverging: Array
    statistic: Array
    carry: dict[str, Any] = {}  # noqa: RUF012
    seen: Any = None


class StepParts(NamedTuple):
    """A step taken apart, for a loop that knows where warm-up ends.

    - **move** - ``state -> (state, transition)``, which leaves what is adapted as it is.
    - **learn** - ``(i, state, transition) -> state``, adapted by the ``i``-th step.
    - **num_warmup** - steps from which something is learned.
    """

    move: Callable[[Any], tuple[Any, Transition]]
    learn: Callable[[Array, Any, Transition], Any]
    num_warmup: int
