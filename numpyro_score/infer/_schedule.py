"""When warm-up does what."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

_FIRST_WINDOW = 20
_GROWTH = 1.5
_STEP_SIZE_SHARE = 0.25
MOVES_PER_DIMENSION = 2


class Schedule(NamedTuple):
    """Plan of a warm-up: at which steps a metric window ends, for steps ``0 … len - 1``.

    The last quarter belongs to the step size alone. NumPyro's 50 steps are too few for it: a
    Langevin step reports one acceptance, where NUTS reports the mean over a tree.
    """

    ends_window: np.ndarray
    longest_window: int

    @property
    def last_window(self) -> int:
        """The step at which the last window ends."""
        return int(np.flatnonzero(self.ends_window)[-1]) if self.ends_window.any() else 0

    @property
    def num_warmup(self) -> int:
        """Number of warm-up steps."""
        return len(self.ends_window)


def build_schedule(num_warmup: int) -> Schedule:
    """Return windows that grow by half, so that each metric is estimated under a better one.

    >>> import numpy as np
    >>> np.flatnonzero(build_schedule(400).ends_window).tolist()
    [19, 49, 94, 161, 299]
    """
    ends = np.zeros(num_warmup, bool)
    last = num_warmup - int(np.ceil(_STEP_SIZE_SHARE * num_warmup))
    start, size, longest = 0, float(_FIRST_WINDOW), 0
    while start < last:
        end = start + int(size)
        # A remainder too short for the next window is added to this one.
        if end + int(size * _GROWTH) > last:
            end = last
        ends[end - 1] = True
        longest = max(longest, end - start)
        start, size = end, size * _GROWTH
    return Schedule(ends, longest)


def check_window(schedule: Schedule, size: int, accept_prob: float, num_chains: int) -> None:
    """Warn where no window of so many chains fills a metric of ``size`` directions."""
    accept_prob = accept_prob * num_chains
    moves = accept_prob * schedule.longest_window
    needed = MOVES_PER_DIMENSION * size
    if schedule.num_warmup > 0 and moves < needed:
        warnings.warn(
            f"Only the diagonal of the metric will be adapted: {schedule.num_warmup} warm-up steps "
            f"have a longest window of {schedule.longest_window}, of which about {moves:.0f} move, "
            f"and a metric of {size} directions takes {needed} moves. Use num_warmup of about "
            f"{_enough_warmup(needed / accept_prob)} or more, or a diagonal metric.",
            stacklevel=4,
        )


def _enough_warmup(window: float) -> int:
    """Return how long a warm-up must be, in round numbers, for a window of that length."""
    num_warmup = 10
    while build_schedule(num_warmup).longest_window < window:
        num_warmup = int(num_warmup * 1.25)
    return num_warmup
