"""How often credible intervals hold the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from numpyro_score._typing import Array
from numpyro_score.diagnostics._posteriors import draws_and_truth
from numpyro_score.diagnostics._ranks import central_coverage, rank_of_truth
from numpyro_score.diagnostics.result import Diagnostic

_NUM_ERRORS = 3.0


@dataclass(frozen=True, repr=False)
class Coverage(Diagnostic):
    """Result of :func:`coverage`.

    - **value** - the coverage that is the most standard errors from what it should be.
    - **error** - its standard error.
    - **probs** - of the intervals; those nearest to the ones asked for that so many draws have.
    - **coverages**, **errors** - how often the intervals hold the truth, and standard errors.
    - **ranks** - of the truth among the draws, from 0 to ``num_draws``, of the shape of the truth.
    - **num_draws** - draws of each posterior.
    """

    probs: tuple[float, ...]
    coverages: tuple[float, ...]
    errors: tuple[float, ...]
    ranks: np.ndarray
    num_draws: int

    def reading(self) -> str:
        """Return the coverage of each interval."""
        table = zip(self.probs, self.coverages, self.errors, strict=True)
        held = ", ".join(f"{p:.3g} hold {c:.3g} ± {e:.1g}" for p, c, e in table)
        return f"intervals of {held}; {self._verdict()}"

    def _verdict(self) -> str:
        away = (np.array(self.coverages) - self.probs) / np.array(self.errors)
        if np.abs(away).max() <= _NUM_ERRORS:
            return "as they should"
        low = away[np.abs(away).argmax()] < 0
        return "too few: draws are too narrow or shifted" if low else "too many: draws are too wide"


def coverage(
    draws: Array, truth: Array, *, probs: Sequence[float] = (0.5, 0.9), axis: int = 1
) -> Coverage:
    """Count how often central credible intervals hold the truth.

    Over many replications, each with a truth and a posterior of its own, or over many components
    of one posterior, such as the pixels of an image. Intervals lie between order statistics of
    the draws, so that L exact draws have exactly the coverage that is told in ``probs``. The
    standard error is binomial, or that between replications where that is larger. Components of
    one posterior are counted as if they did not depend on each other: with one replication only,
    the error is too small where they do.

    :param draws: shape ``(replications, draws, *event_shape)``; with ``axis=0``
        ``(draws, *truth.shape)``. Nearly independent: thin those of a chain.
    :param truth: the shape of ``draws`` without the axis of draws.
    :param probs: of the intervals, between 0 and 1.
    :param axis: the axis of draws, 0 or 1.
    :raises ValueError: shapes that do not fit, fewer draws than an interval needs, chains that did
        not move.
    :raises FloatingPointError: a draw or a truth is not finite.

    >>> import jax
    >>> from numpyro_score.diagnostics import coverage
    >>> truth, draws = jax.random.normal(jax.random.key(0), (2, 500, 99))
    >>> coverage(draws, truth[:, 0])
    Coverage(... intervals of 0.5 hold ...; as they should)
    >>> coverage(0.5 * draws, truth[:, 0])
    Coverage(... too few: draws are too narrow or shifted)
    """
    of_draws, of_truth = draws_and_truth(draws, truth, axis, num_axes=1)
    num_draws = of_draws.shape[axis]
    for prob in probs:
        if not 0 < prob < 1:
            raise ValueError(f"probs must be between 0 and 1, got {prob!r}.")
        if (1 - prob) / 2 * (num_draws + 1) < 1 - 1e-6:
            raise ValueError(
                f"an interval of probability {prob} needs at least {round(2 / (1 - prob)) - 1} "
                f"draws, got {num_draws}."
            )
    if not probs:
        raise ValueError("probs must hold at least one probability.")
    ranks = rank_of_truth(of_draws, of_truth, axis, np.random.default_rng(0))
    # One posterior is one replication, but for the error its components count one by one.
    rows = ranks.reshape(1, -1) if axis == 0 else ranks
    found = [central_coverage(rows, num_draws, prob) for prob in probs]
    coverages, errors, exact = zip(*found, strict=True)
    worst = int(np.argmax(np.abs(np.subtract(coverages, exact)) / errors))
    return Coverage(coverages[worst], errors[worst], exact, coverages, errors, ranks, num_draws)
