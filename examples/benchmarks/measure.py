"""The interleaved run, and what its draws are worth."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import arviz as az
import numpy as np
from contestants import Contestant, Draws

_MAX_R_HAT = 1.01
_ACCEPTANCE_BAND = 0.15
_KEPT_DRAWS, _KEPT_STEPS = 300_000, 10_000
_R_HAT_DRAWS = 50_000


@dataclass
class Measurement:
    """All that is measured of one contestant.

    - **seconds_per_step** - one number per repeat, for a step of all chains together.
    - **ess_per_step** - bulk ESS over all chains of the worst parameter; None for the floor.
    - **unhealthy** - why an ESS per second would mean nothing, or an empty string.
    """

    contestant: Contestant
    seconds_per_step: np.ndarray
    ess_per_step: float | None = None
    accept_prob: float | None = None
    r_hat: float | None = None
    unhealthy: str = ""

    def ess_per_second(self) -> np.ndarray:
        """Return the ESS per second of sampling in each repeat."""
        return self.ess_per_step / self.seconds_per_step

    def ess_per_second_with_warmup(self) -> float | None:
        """Return the ESS per second of a run with as many steps after warm-up as in it."""
        seconds, steps = self.contestant.warmup_seconds, self.contestant.size.warmup
        if seconds is None:
            return None
        return self.ess_per_step * steps / (seconds + steps * np.median(self.seconds_per_step))


def measure(
    contestants: list[Contestant], repeats: int, seconds: float, progress: Callable[[str], None]
) -> list[Measurement]:
    """Run every contestant once per repeat, in an order that rotates.

    :param seconds: how long one run is, at least one call of the program.
    :param progress: called with a name before each run and each diagnosis.
    """
    calls = [max(1, round(seconds / c.run(1)[0])) for c in contestants]
    times = np.empty((repeats, len(contestants)))
    draws: list[list[Draws]] = [[] for _ in contestants]
    for repeat in range(repeats):
        for turn in range(len(contestants)):
            k = (turn + repeat) % len(contestants)
            contestant = contestants[k]
            progress(contestant.name)
            elapsed, collected = contestant.run(calls[k])
            times[repeat, k] = elapsed / (calls[k] * contestant.size.steps)
            room = _kept_calls(contestant) - len(draws[k])
            draws[k] += [_to_numpy(d) for d in collected[:room] if d is not None]
    measurements = []
    for k, contestant in enumerate(contestants):
        progress(f"ESS of {contestant.name}")
        measurements.append(_diagnose(contestant, times[:, k], draws[k]))
    return measurements


def _kept_calls(contestant: Contestant) -> int:
    """Return how many calls to judge by: ArviZ takes longer over draws than these take to draw."""
    chains, steps, _ = contestant.size
    return max(_KEPT_DRAWS // chains, _KEPT_STEPS) // steps


def _to_numpy(draws: Draws) -> tuple[np.ndarray, float | None]:
    """Return positions ``(chains, draws, parameters)`` and the mean acceptance probability."""
    accept_prob = None if draws.accept_prob is None else float(np.mean(draws.accept_prob))
    sites = [np.asarray(site) for site in draws.positions.values()]
    return np.concatenate([s.reshape(*s.shape[:2], -1) for s in sites], axis=2), accept_prob


def _diagnose(
    contestant: Contestant, times: np.ndarray, draws: list[tuple[np.ndarray, float | None]]
) -> Measurement:
    if not draws:
        return Measurement(contestant, times)
    positions = np.concatenate([d[0] for d in draws], axis=1)
    accept_prob = None if draws[0][1] is None else float(np.mean([d[1] for d in draws]))
    ess, r_hat = _ess_and_r_hat(positions)
    reasons = []
    if not r_hat <= _MAX_R_HAT:
        reasons.append("r")
    if accept_prob and not abs(accept_prob - contestant.target_accept_prob) <= _ACCEPTANCE_BAND:
        reasons.append("a")
    steps = positions.shape[1]
    return Measurement(contestant, times, ess / steps, accept_prob, r_hat, ",".join(reasons))


def _ess_and_r_hat(positions: np.ndarray) -> tuple[float, float]:
    """Return the least bulk ESS and the largest R-hat over the parameters.

    Both go by ranks, so it does not matter that BlackJAX's positions are unconstrained.
    """
    chains, steps, size = positions.shape
    thinned = positions[:, :: max(1, chains * steps // _R_HAT_DRAWS)]
    if chains == 1:
        # ArviZ wants chains to compare: the halves of the one.
        half = thinned.shape[1] // 2
        thinned = thinned[:, : 2 * half].reshape(2, half, size)
    with ThreadPoolExecutor() as pool:
        ess = list(pool.map(lambda k: float(az.ess(positions[..., k])), range(size)))
        r_hat = list(pool.map(lambda k: float(az.rhat(thinned[..., k])), range(size)))
    return float(np.min(ess)), float(np.max(r_hat))
