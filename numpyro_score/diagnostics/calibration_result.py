"""What simulation-based calibration found: ranks, and whether they are uniform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from numpyro_score.diagnostics._ranks import central_coverage, holm, shape_in_words
from numpyro_score.diagnostics.result import Diagnostic

_LEVEL = 0.01


@dataclass(frozen=True, repr=False)
class SimulationBasedCalibration(Diagnostic):
    """Result of :func:`simulation_based_calibration`.

    - **value** - the p-value of all components together, by Holm's rule; NaN where draws are not
      finite, or depend on each other so much that ranks would not be uniform for that alone.
    - **error** - 0: a p-value has none.
    - **ranks** - of the truth among the draws, from 0 to ``num_draws``, by name, of shape
      ``(replications, *event_shape)``.
    - **p_values** - of each component by itself, by name, of shape ``event_shape``; NaN for one
      that is the same number always.
    - **truth**, **draws** - by name, of shapes ``(replications, *event_shape)`` and
      ``(replications, draws, *event_shape)``; :func:`expected_coverage` takes them.
    - **num_draws**, **thinning** - draws of each posterior; steps of the kernel from one to the
      next.
    - **ess** - effective number of the draws of one posterior, by name, of shape ``event_shape``.
    - **num_stuck** - replications in which some latent component never moved.
    - **kernel** - its ``repr``.
    - **notes** - what else to know.
    """

    ranks: dict[str, np.ndarray]
    p_values: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    num_draws: int
    thinning: int
    ess: dict[str, np.ndarray]
    num_stuck: int
    kernel: str
    notes: tuple[str, ...]

    def reading(self) -> str:
        """Return whether ranks are uniform, and what it means where they are not."""
        return "; ".join([self._verdict(), *self._troubles(), *self.notes])

    def _verdict(self) -> str:
        num = len(next(iter(self.ranks.values())))
        names, p_values = self._flat(self.p_values)
        columns = np.concatenate([x.reshape(num, -1) for x in self.ranks.values()], 1)
        ranked = np.flatnonzero(~np.isnan(p_values))
        names, p_values, columns = [names[i] for i in ranked], p_values[ranked], columns[:, ranked]
        what = f"ranks of {len(names)} components in {num} replications"
        if not np.isfinite(self.value):
            return f"{what}: cannot tell"
        if self.value >= _LEVEL:
            return f"{what} are uniform, as they should be"
        adjusted = holm(p_values)
        worst = int(np.argmin(p_values))
        return (
            f"{what} are not uniform: {np.sum(adjusted < _LEVEL)} fail, {names[worst]} most, where "
            f"{shape_in_words(columns[:, worst], self.num_draws)}"
        )

    def _troubles(self) -> list[str]:
        troubles = []
        bad = np.zeros(len(next(iter(self.ranks.values()))), bool)
        for x in self.draws.values():
            bad |= ~np.isfinite(x).reshape(len(x), -1).all(1)
        if bad.any():
            troubles.append(f"draws are not finite in {bad.sum()} replications")
        elif np.isnan(self.value):
            smallest = min(np.min(size) for size in self.ess.values())
            troubles.append(
                f"the {self.num_draws} draws of a chain are worth {smallest:.0f}, which by itself "
                f"makes ranks extreme: raise thinning (it was {self.thinning}) or num_warmup"
            )
        if self.num_stuck:
            troubles.append(f"chains that never moved in {self.num_stuck} replications")
        return troubles

    def coverage(self, probs: Sequence[float] = (0.5, 0.9)) -> dict[str, dict[float, float]]:
        """Return how often central credible intervals hold the truth, by name.

        :param probs: of the intervals; the keys returned are the nearest that so many draws have.
        """
        return {
            name: {
                exact: found
                for found, _, exact in (central_coverage(r, self.num_draws, p) for p in probs)
            }
            for name, r in self.ranks.items()
        }

    def to_arviz(self) -> Any:
        """Return the ranks for ArviZ's figures, divided to lie between 0 and 1.

        The group ``prior_sbc`` has the dimensions ``chain`` (of length 1), ``draw`` (the
        replications) and those of an event. With ArviZ 1 ``az.plot_ecdf_pit(data)`` draws them;
        with ArviZ 0.23 ``az.plot_ecdf(data.prior_sbc["mu"].values.ravel(), cdf=lambda p: p,
        difference=True, confidence_bands=True, eval_points=np.linspace(0, 1, 100))`` draws one.

        :return: an ``InferenceData`` (ArviZ 0.23) or a ``DataTree`` (ArviZ 1).
        """
        import arviz as az
        import xarray as xr

        variables = {}
        for name, ranks in self.ranks.items():
            dims = [f"{name}_dim_{axis}" for axis in range(ranks.ndim - 1)]
            values = (ranks[None] + 0.5) / (self.num_draws + 1)
            variables[name] = (["chain", "draw", *dims], values)
        attributes = {"kernel": self.kernel, "num_draws": self.num_draws}
        data = xr.Dataset(variables, attrs=attributes | {"thinning": self.thinning})
        data = data.assign_coords({dim: np.arange(size) for dim, size in data.sizes.items()})
        if "InferenceData" in vars(az):  # a mere question to ArviZ 1 is a warning
            return az.InferenceData(prior_sbc=data)
        return xr.DataTree.from_dict({"prior_sbc": data})

    def _flat(self, by_name: dict[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
        """Return the names of all components, and their values."""
        names = [
            name + (f"[{', '.join(map(str, index))}]" if index else "")
            for name, values in by_name.items()
            for index in np.ndindex(np.shape(values))
        ]
        return names, np.concatenate([np.ravel(values) for values in by_name.values()])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p = {self.value:.2g}: {self.reading()})"
