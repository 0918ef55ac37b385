"""What a run says while it runs: a bar that moves between chunks."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
from numpyro.infer.mcmc import MCMCKernel
from tqdm.auto import tqdm

from numpyro_score._typing import PyTree
from numpyro_score.infer._upstream import Plan

_SECONDS_PER_CHUNK = 0.3
_FIRST_CHUNK = 16
_GROWTH = 8
_MAX_VALUES = 100_000
_MAX_BLOCKS = 64
_MIN_DRAWS = 4


class Pace:
    """Chunk lengths that take about a third of a second.

    :param chunk_size: a fixed number of steps, or None for what the time tells.
    :param last: the length that an earlier run of the same program ended with, if there was one.
    """

    def __init__(self, chunk_size: int | None, last: int | None = None) -> None:
        self._fixed = chunk_size is not None
        self.num_steps = chunk_size or last or _FIRST_CHUNK
        self._since = time.perf_counter()

    def start(self) -> None:
        """Start the clock, after whatever a chunk has to wait for."""
        self._since = time.perf_counter()

    def lap(self, num_steps: int) -> None:
        """Choose the next length by the time that ``num_steps`` took."""
        elapsed = max(time.perf_counter() - self._since, 1e-6)
        self._since += elapsed
        if not self._fixed:
            wanted = int(num_steps * _SECONDS_PER_CHUNK / elapsed)
            self.num_steps = max(1, min(wanted, _GROWTH * self.num_steps))


class Bar:
    """Phase, speed, time left, what the kernel says, what went wrong, and R-hat.

    :param done: steps that an earlier process took.
    """

    def __init__(self, kernel: MCMCKernel, plan: Plan, done: int, enabled: bool) -> None:
        self.enabled = enabled
        self._kernel = kernel
        self._plan = plan
        self._rhat = RunningRhat()
        self._tqdm = tqdm(
            total=plan.num_steps, initial=done, disable=not enabled, unit="step", dynamic_ncols=True
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._tqdm.close()

    def add_draws(self, draws: PyTree) -> None:
        """Take kept draws into R-hat; leaves have the axes (chain, draw, ...)."""
        if self.enabled:
            self._rhat.add(draws)

    def update(self, before: int, after: int, states: list[PyTree], wrong: tuple[int, int]) -> None:
        """Move from step ``before`` to ``after``.

        :param states: of every chain, or of all chains as one.
        :param wrong: non-finite potential energies, and divergences, since the start.
        """
        if not self.enabled:
            return
        phase = "warmup" if after <= self._plan.num_warmup and before < after else "sample"
        self._tqdm.set_description_str(phase, refresh=False)
        parts = [diagnostics(self._kernel, states)]
        parts += [f"{n} {what}" for n, what in zip(wrong, _WRONG, strict=True) if n]
        rhat = self._rhat.value()
        parts += [] if rhat is None else [f"R-hat {rhat:.3f}"]
        self._tqdm.set_postfix_str(", ".join(filter(None, parts)), refresh=False)
        self._tqdm.update(after - before)


_WRONG = ("non-finite", "divergent")


def diagnostics(kernel: MCMCKernel, states: list[PyTree]) -> str:
    """Return the kernel's line; with several chains, that of their mean."""
    view = states[0] if _is_single(states) else _MeanOfChains(states)
    try:
        return kernel.get_diagnostics_str(view)
    except (AttributeError, TypeError, ValueError, IndexError):
        return ""  # a kernel whose line cannot be written of a mean


def _is_single(states: list[PyTree]) -> bool:
    return len(states) == 1 and not np.ndim(getattr(states[0], "potential_energy", 0.0))


class _MeanOfChains:
    """Looks like a state of one chain; its numbers are means over chains."""

    def __init__(self, states: list[PyTree]) -> None:
        self._states = states

    def __getattr__(self, name: str) -> Any:
        return _mean([getattr(state, name) for state in self._states])

    def __getitem__(self, item: Any) -> Any:
        return _mean([state[item] for state in self._states])


def _mean(values: list[Any]) -> Any:
    if isinstance(values[0], (tuple, list, dict)):
        return _MeanOfChains(values)
    return np.mean([np.mean(value) for value in values])


class RunningRhat:
    """Split R-hat from means and variances of blocks of draws; the draws are not kept."""

    def __init__(self) -> None:
        self._blocks: list[tuple[int, np.ndarray, np.ndarray]] = []
        self._every: int | None = None  # so-manieth parameter, the same ones in all blocks

    def add(self, draws: PyTree) -> None:
        """Add a block; leaves have the axes (chain, draw, ...)."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(draws)]
        leaves = [x.reshape(*x.shape[:2], -1) for x in leaves if x.dtype.kind == "f"]
        if not leaves or leaves[0].shape[0] < 2:
            return
        num_draws, size = leaves[0].shape[1], sum(x.size for x in leaves)
        if self._every is None:
            self._every = 1 + _MIN_DRAWS * size // num_draws // _MAX_VALUES
        stride = 1 + size // (self._every * _MAX_VALUES)
        rows = max(1, min(stride, num_draws // _MIN_DRAWS))
        x = np.concatenate([x[:, ::rows, :: self._every] for x in leaves], axis=2)
        x = x.astype(np.float64)
        for part in np.array_split(x, 2, axis=1):
            if part.shape[1]:
                n, mean = part.shape[1], part.mean(1)
                self._blocks.append((n, mean, ((part - mean[:, None]) ** 2).sum(1)))
        if len(self._blocks) > _MAX_BLOCKS:
            pairs = [self._blocks[i : i + 2] for i in range(0, len(self._blocks), 2)]
            self._blocks = [_merge(pair) for pair in pairs]

    def value(self) -> float | None:
        """Return the largest split R-hat of the parameters; None for a single chain."""
        total = sum(n for n, _, _ in self._blocks)
        if total < 2 * _MIN_DRAWS:
            return None
        middle = np.cumsum([n for n, _, _ in self._blocks]).searchsorted(total / 2) + 1
        halves = [_merge(part) for part in (self._blocks[:middle], self._blocks[middle:]) if part]
        n = min(n for n, _, _ in halves)
        means = np.concatenate([mean for _, mean, _ in halves])
        within = np.concatenate([m2 / max(n - 1, 1) for n, _, m2 in halves]).mean(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            rhat = np.sqrt((n - 1) / n + means.var(0, ddof=1) / within)
        return float(rhat.max())


def _merge(
    blocks: list[tuple[int, np.ndarray, np.ndarray]],
) -> tuple[int, np.ndarray, np.ndarray]:
    n = sum(n for n, _, _ in blocks)
    mean = sum(n_i * mean_i for n_i, mean_i, _ in blocks) / n
    m2 = sum(m2_i + n_i * (mean_i - mean) ** 2 for n_i, mean_i, m2_i in blocks)
    return n, np.asarray(mean), np.asarray(m2)
