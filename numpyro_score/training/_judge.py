"""How good a network is, by rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array, PyTree
from numpyro_score.training._data import Rows
from numpyro_score.training._loop import Problem, losses_of
from numpyro_score.training.result import Losses, Mean

# A gap between losses that is told: in standard errors, and as a part of what the fit gained.
_SURE, _LOST = 5.0, 0.5


class Judge:
    """Validation rows, and what is computed from them.

    :param problem: that of the fit.
    :param rows: the validation rows.
    :param rng_key: of the noise, the same each time.
    :param metrics: functions ``metric(network, data[, condition])`` by name.
    """

    def __init__(
        self,
        problem: Problem,
        rows: Rows,
        rng_key: Array,
        metrics: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._problem = problem
        self._rng_key = rng_key
        self.rows = rows
        self.metrics = {name: eqx.filter_jit(metric) for name, metric in metrics.items()}

    def loss(self, params: PyTree) -> float:
        """Return the mean loss of the network that has these parameters."""
        return float(jnp.mean(self._losses(params, self.rows)))

    def measure(self, params: PyTree) -> dict[str, float]:
        """Return the metrics of the network that has these parameters, by name."""
        network, rows = self._problem.network(params), self.rows
        condition = () if rows.condition is None else (rows.condition,)
        values = {n: metric(network, rows.data, *condition) for n, metric in self.metrics.items()}
        for name, value in values.items():
            if jnp.shape(value) != ():
                raise ValueError(
                    f"metric {name!r} must return one number, got the shape {jnp.shape(value)}."
                )
        return {name: float(value) for name, value in values.items()}

    def compare(self, before: PyTree, after: PyTree, training: Rows) -> Losses | None:
        """Return the losses of two networks on training rows and on as many held out.

        None where there are too few training rows, or a loss is not finite.
        """
        num_rows = len(self.rows)
        if len(training) < num_rows:
            return None
        # Of the same shapes, so that nothing is compiled again; from all over, should they be
        # sorted.
        index = jnp.linspace(0, len(training) - 1, num_rows).round().astype(int)
        parts = (training.take(index), self.rows)
        losses = [
            np.asarray(self._losses(params, rows), np.float64)
            for params in (before, after)
            for rows in parts
        ]
        if not np.isfinite(losses).all():
            return None
        return Losses(*[Mean(x.mean(), x.std() / np.sqrt(num_rows)) for x in losses])

    def _losses(self, params: PyTree, rows: Rows) -> Array:
        return losses_of(self._problem, params, rows, self._rng_key)


def find_fault(losses: Losses) -> str:
    """Return what is visibly wrong with a fit, or an empty string."""
    gap = losses.validation_after.value - losses.training_after.value
    error = np.hypot(losses.validation_after.error, losses.training_after.error)
    gained = losses.training_before.value - losses.training_after.value
    if not (gap > _SURE * error and gap > _LOST * gained):
        return ""
    return (
        f"the loss of held-out rows is {losses.validation_after.value:.4g}, that of rows trained "
        f"on {losses.training_after.value:.4g} (before: {losses.training_before.value:.4g}): most "
        "of what was learned is these rows by heart. Bring more rows, a smaller network, fewer "
        "steps, or a larger noise_scale."
    )
