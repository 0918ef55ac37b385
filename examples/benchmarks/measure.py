"""The interleaved run, and what its draws are worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import arviz as az
import jax
import numpy as np
from contestants import Contestant, Draws
from numpyro.diagnostics import split_gelman_rubin

_MAX_R_HAT = 1.01
_ACCEPTANCE_BAND = 0.15
_KEPT_DRAWS, _KEPT_NUMBERS = 300_000, 50_000_000
_R_HAT_DRAWS = 50_000
_SUSPECTS = 16


@dataclass
class Measurement:
    """All that is measured of one contestant, as numbers that JSON can hold.

    - **seconds_per_step** - one number per repeat, for a step of all chains together.
    - **warmup_steps**, **warmup_seconds** - of its warm-up; None where it has none.
    - **ess_per_step** - bulk ESS over all chains of the worst parameter; None where no draws are
      judged.
    - **unhealthy** - why an ESS per second would mean nothing, or an empty string.
    - **bare** - name of the bare loop of the same kernel, where there is one.
    """

    name: str
    compile_seconds: float
    seconds_per_step: list[float]
    warmup_steps: int
    warmup_seconds: float | None = None
    ess_per_step: float | None = None
    accept_prob: float | None = None
    r_hat: float | None = None
    unhealthy: str = ""
    bare: str | None = None

    @property
    def times(self) -> np.ndarray:
        """Return the seconds per step of each repeat."""
        return np.asarray(self.seconds_per_step)

    def ess_per_second(self) -> np.ndarray:
        """Return the ESS per second of sampling in each repeat."""
        return self.ess_per_step / self.times

    def ess_per_second_with_warmup(self) -> float | None:
        """Return the ESS per second of a run with as many steps after warm-up as in it."""
        if self.warmup_seconds is None or self.ess_per_step is None:
            return None
        seconds = self.warmup_seconds + self.warmup_steps * np.median(self.times)
        return float(self.ess_per_step * self.warmup_steps / seconds)


def measure(
    contestants: list[Contestant], repeats: int, seconds: float, progress: Callable[[str], None]
) -> list[Measurement]:
    """Run every contestant once per repeat, in an order that rotates.

    :param seconds: how long one run is, at least one call of the program.
    :param progress: called with a name before each run and each diagnosis.
    """
    calls = [max(1, round(seconds / c.run(1)[0])) for c in contestants]
    strides = [
        _stride(c, repeats * n * c.size.steps) if c.judged else 1
        for c, n in zip(contestants, calls, strict=True)
    ]
    times = np.empty((repeats, len(contestants)))
    draws: list[list[tuple[np.ndarray, float | None]]] = [[] for _ in contestants]
    for repeat in range(repeats):
        for turn in range(len(contestants)):
            k = (turn + repeat) % len(contestants)
            contestant = contestants[k]
            progress(contestant.name)
            elapsed, collected = contestant.run(calls[k])
            times[repeat, k] = elapsed / (calls[k] * contestant.size.steps)
            if contestant.judged:
                draws[k] += [_to_numpy(some, strides[k]) for some in collected]
    measurements = []
    for k, contestant in enumerate(contestants):
        progress(f"ESS of {contestant.name}")
        num_steps = repeats * calls[k] * contestant.size.steps
        measurements.append(_diagnose(contestant, times[:, k], draws[k], num_steps))
    return measurements


def _stride(contestant: Contestant, num_steps: int) -> int:
    """Return every how many steps a draw is kept: ArviZ takes longer over draws than drawing does.

    Langevin kernels forget over far more steps than that; trajectories take too few to be thinned.
    """
    chains, steps, _ = contestant.size
    size = sum(leaf.size for leaf in jax.tree.leaves(contestant.state.z)) // chains
    draws = max(num_steps * chains / _KEPT_DRAWS, num_steps * chains * size / _KEPT_NUMBERS)
    return min(max(1, ceil(draws)), steps // 2)


def _to_numpy(draws: Draws, stride: int) -> tuple[np.ndarray, float | None]:
    """Return positions ``(chains, draws, parameters)`` and the mean acceptance probability."""
    accept_prob = None if draws.accept_prob is None else float(np.mean(draws.accept_prob))
    sites = [np.asarray(site)[:, ::stride] for site in draws.positions.values()]
    return np.concatenate([s.reshape(*s.shape[:2], -1) for s in sites], axis=2), accept_prob


def _diagnose(
    contestant: Contestant,
    times: np.ndarray,
    draws: list[tuple[np.ndarray, float | None]],
    num_steps: int,
) -> Measurement:
    measurement = Measurement(
        contestant.name,
        contestant.compile_seconds,
        times.tolist(),
        contestant.size.warmup,
        contestant.warmup_seconds,
        bare=contestant.bare,
    )
    if not draws:
        return measurement
    positions = np.concatenate([d[0] for d in draws], axis=1)
    ess, measurement.r_hat = _ess_and_r_hat(positions)
    measurement.ess_per_step = ess / num_steps
    reasons = [] if measurement.r_hat <= _MAX_R_HAT else ["r"]
    if draws[0][1] is not None:
        accept_prob = measurement.accept_prob = float(np.mean([d[1] for d in draws]))
        target = contestant.target_accept_prob
        if target is not None and not abs(accept_prob - target) <= _ACCEPTANCE_BAND:
            reasons.append("a")
    measurement.unhealthy = ",".join(reasons)
    return measurement


def _ess_and_r_hat(positions: np.ndarray) -> tuple[float, float]:
    """Return the least bulk ESS and the largest R-hat over the parameters.

    ArviZ's go by ranks, which takes long; it is asked about the parameters whose chains differ the
    most in mean, and whose batches do.
    """
    chains, steps, size = positions.shape
    suspects = _suspects(positions)
    thinned = positions[:, :: max(1, chains * steps // _R_HAT_DRAWS)]
    if chains == 1:
        # ArviZ wants chains to compare: the halves of the one.
        half = thinned.shape[1] // 2
        thinned = thinned[:, : 2 * half].reshape(2, half, size)
    ess = [float(az.ess(positions[..., k])) for k in suspects]
    r_hat = [float(az.rhat(thinned[..., k])) for k in suspects]
    return float(np.min(ess)), float(np.max(r_hat))


def _suspects(positions: np.ndarray) -> np.ndarray:
    """Return the parameters that may have the least ESS or the largest R-hat."""
    chains, steps, size = positions.shape
    if size <= _SUSPECTS:
        return np.arange(size)
    num_batches = max(2, int(np.sqrt(steps)))
    length = steps // num_batches
    batches = positions[:, : num_batches * length].reshape(chains, num_batches, length, size)
    means = batches.mean(2).reshape(-1, size)
    slow = length * means.var(0) / positions.var((0, 1))
    apart = split_gelman_rubin(positions)
    half = _SUSPECTS // 2
    return np.unique(np.concatenate([np.argsort(-slow)[:half], np.argsort(-apart)[:half]]))
