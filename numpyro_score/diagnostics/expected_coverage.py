"""Expected coverage of many posteriors at once, by distances to random points (TARP)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from scipy import stats

from numpyro_score._typing import Array
from numpyro_score.diagnostics._posteriors import draws_and_truth
from numpyro_score.diagnostics._ranks import as_uniform
from numpyro_score.diagnostics.result import Diagnostic

_MIN_REPLICATIONS = 20
_LEVEL = 0.01


@dataclass(frozen=True, repr=False)
class ExpectedCoverage(Diagnostic):
    """Result of :func:`expected_coverage`.

    - **value** - expected coverage minus credibility, where they are furthest apart.
    - **error** - its standard error, at one credibility.
    - **p_value** - of a Kolmogorov-Smirnov test that they are the same.
    - **credibility**, **coverage** - the curve, of shape ``(101,)`` each.
    """

    p_value: float
    credibility: np.ndarray
    coverage: np.ndarray

    def reading(self) -> str:
        """Return whether posteriors are calibrated, and if not, which way."""
        p = f"largest difference of coverage from credibility, p = {self.p_value:.2g}"
        if self.p_value >= _LEVEL:
            return f"{p}: as it should be"
        away = self.coverage - self.credibility
        low, high = away[self.credibility < 0.5].mean(), away[self.credibility > 0.5].mean()
        if high < 0 < low:
            # Far from the reference points, a shift and a lack of width look the same.
            return f"{p}: not calibrated, as of draws that are too narrow, or shifted"
        if abs(low) >= abs(high) and not low < 0 < high:
            return f"{p}: not calibrated, as of draws that are shifted"
        return f"{p}: not calibrated, as of draws that are too {'narrow' if high < 0 else 'wide'}"


def expected_coverage(
    rng_key: Array,
    draws: Array | Mapping[str, Array],
    truth: Array | Mapping[str, Array],
    *,
    references: Array | None = None,
) -> ExpectedCoverage:
    r"""Test the joint calibration of posteriors in all dimensions at once: TARP.

    For each replication a random point θᵣ is taken, and the fraction f of the draws that lie
    closer to it than the truth does. Where posteriors are right, f is uniform, and

    .. math:: \mathrm{ECP}(\alpha) = \Pr(f < \alpha) = \alpha

    is the expected coverage of the balls around θᵣ that hold the fraction α of the draws. Ranks of
    components cannot see a wrong dependence between them; this test can. With points that know
    nothing of the data, as those taken here, it is passed by posteriors that ignore the data and
    return the prior; give ``references`` that depend on the data to see that.

    Source: P. Lemos et al., Sampling-based accuracy testing of posterior estimators for general
    inference, ICML (2023), algorithm 2 and theorem 3.

    :param rng_key: a random key, for the points.
    :param draws: shape ``(replications, draws, *event_shape)``, or a dict of such arrays by site,
        such as the ``draws`` of :func:`simulation_based_calibration`.
    :param truth: shape ``(replications, *event_shape)``, or a dict with the same sites.
    :param references: points of the shape of ``truth`` (of arrays only); by default uniform in the
        box that holds the truths. Distances are in units of its edges.
    :raises ValueError: shapes that do not fit, fewer than 20 replications, truths that are all one,
        chains that did not move.
    :raises FloatingPointError: a draw or a truth is not finite.

    >>> import jax
    >>> from numpyro_score.diagnostics import expected_coverage
    >>> key = jax.random.key(0)
    >>> truth, *draws = jax.random.normal(key, (100, 300, 2))
    >>> draws = jax.numpy.stack(draws, 1)
    >>> expected_coverage(key, draws, truth)
    ExpectedCoverage(... as it should be)
    >>> expected_coverage(key, 0.5 * draws, truth)
    ExpectedCoverage(... not calibrated, as of draws that are too narrow, or shifted)
    """
    points, true = _joined(draws, truth)
    num, num_draws = points.shape[:2]
    if num < _MIN_REPLICATIONS:
        raise ValueError(
            f"expected_coverage needs at least {_MIN_REPLICATIONS} replications, got {num}."
        )
    lowest, edge = true.min(0), np.ptp(true, 0)
    if not edge.all():
        raise ValueError(
            f"{np.sum(edge == 0)} components of the truth are the same in all replications, so "
            "that there is nothing to be learned of them: leave them out."
        )
    random = np.random.default_rng(int(jax.random.randint(rng_key, (), 0, 2**31 - 1)))
    if references is None:
        at = random.uniform(size=true.shape)
    elif isinstance(truth, Mapping) or np.shape(references) != np.shape(truth):
        raise ValueError(
            "references must be an array of the shape of truth, "
            f"{np.shape(truth) if not isinstance(truth, Mapping) else 'itself an array'}; got "
            f"{np.shape(references)}."
        )
    else:
        at = (np.asarray(references).reshape(true.shape) - lowest) / edge
    points, true = (points - lowest) / edge, (true - lowest) / edge
    closer = np.linalg.norm(points - at[:, None], axis=-1)
    ranks = np.sum(closer < np.linalg.norm(true - at, axis=-1)[:, None], 1)
    fractions = np.sort(as_uniform(ranks, num_draws, random))
    credibility = np.linspace(0, 1, 101)
    curve = np.searchsorted(fractions, credibility) / num
    away = curve - credibility
    worst = int(np.argmax(np.abs(away)))
    found = curve[worst] * (1 - curve[worst])
    exact = credibility[worst] * (1 - credibility[worst])
    error = np.sqrt(max(found, exact) / num)
    p_value = float(stats.kstest(fractions, "uniform").pvalue)
    return ExpectedCoverage(float(away[worst]), float(error), p_value, credibility, curve)


def _joined(
    draws: Array | Mapping[str, Array], truth: Array | Mapping[str, Array]
) -> tuple[np.ndarray, np.ndarray]:
    """Return draws ``(replications, draws, d)`` and truths ``(replications, d)`` of all sites."""
    sites = draws if isinstance(draws, Mapping) else {"": draws}
    truths = truth if isinstance(truth, Mapping) else {"": truth}
    if sites.keys() != truths.keys() or not sites:
        raise ValueError(
            f"draws and truth must hold the same sites, got {sorted(sites)} and {sorted(truths)}."
        )
    pairs = [draws_and_truth(sites[name], truths[name], 1, num_axes=1) for name in sorted(sites)]
    return (
        np.concatenate([x.reshape(*x.shape[:2], -1) for x, _ in pairs], -1).astype(float),
        np.concatenate([t.reshape(len(t), -1) for _, t in pairs], -1).astype(float),
    )
