"""Whether points are draws of the density that has these scores, by Stein's identity."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size

from numpyro_score._typing import Array
from numpyro_score.diagnostics.findings import NUM_ERRORS, Finding, cannot_tell, judge
from numpyro_score.diagnostics.wild_bootstrap import stein_test

#: Of all tests of a table, so that a healthy model fails none in 200 tables.
LEVEL = 1e-3
_NUM_BOOTSTRAP = 5_000
SCALE, STEIN = "scale: mean of -z·score / d", "Stein test (p-value)"
_SCALE = 0.1
# An error that hides a factor of 2.
_TELLING = 0.5
MIN_POINTS = 50
MAX_POINTS = 500


def scale_finding(points: np.ndarray, scores: np.ndarray, advice: str) -> Finding:
    r"""Judge the mean of :math:`-(z - \bar z) \cdot s / d`, which is 1 for the right density.

    Stein's identity for the function z. Where all variances are off by one factor, this is it.

    :param points: z, shape ``(chains, draws, d)``; likewise the scores.
    """
    z, s = (np.asarray(x, np.float64) for x in (points, scores))
    values = -np.sum((z - z.mean((0, 1))) * s, -1) / z.shape[-1]
    ess = min(float(effective_sample_size(values)), values.size) if values.std() > 0 else np.nan
    error = values.std() / np.sqrt(ess)
    if not NUM_ERRORS * error <= _TELLING:
        why = f"it is {values.mean():.2g} ± {error:.2g}: too few draws that are independent"
        return cannot_tell(SCALE, why)
    return judge(SCALE, values.mean(), (1 - _SCALE, 1 + _SCALE), advice, error=error)


def stein_finding(
    key: Array, points: np.ndarray, scores: np.ndarray, advice: str, what: str
) -> Finding:
    """Judge the p-value of a Stein test of independent points ``(n, d)``.

    In units of their standard deviations: else it sees the coordinate with the largest scores only.
    """
    if len(points) < MIN_POINTS:
        return cannot_tell(STEIN, f"{len(points)} {what} are fewer than {MIN_POINTS}")
    # A constant coordinate has no unit; chains that stand are told elsewhere.
    has_units = bool((np.ptp(points, 0) > 0).all())
    test = stein_test(
        key,
        jnp.asarray(scores),
        jnp.asarray(points),
        num_bootstrap=_NUM_BOOTSTRAP,
        preconditioner="diagonal" if has_units else None,
        event_dim=1,
    )
    return judge(STEIN, test.p_value, (LEVEL, np.inf), advice)
