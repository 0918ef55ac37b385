"""Whether data are draws of a density: by its score, and by draws of it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array
from numpyro_score.diagnostics._moves import moved_rows
from numpyro_score.diagnostics._probes import probes_of
from numpyro_score.diagnostics._proposals import spread
from numpyro_score.diagnostics._stein_findings import (
    LEVEL,
    MAX_POINTS,
    scale_finding,
    stein_finding,
)
from numpyro_score.diagnostics._subject import Subject
from numpyro_score.diagnostics.curl import curl
from numpyro_score.diagnostics.findings import Finding, cannot_tell, judge
from numpyro_score.diagnostics.maximum_mean_discrepancy import maximum_mean_discrepancy
from numpyro_score.diagnostics.tails import tail_check
from numpyro_score.distributions import DiffusionDistribution, ScoreDistribution

# Twice the posterior means of networks with a curl of .097 were off by .2 standard deviations
# along local paths; MALA is exact for its own density all the same.
_CURL = 0.1
_CURL_POINTS = 64
_EXACT_TRACE = 32
_NUM_PROBES = 8
_FEW_ROWS = 100
_NUM_PERMUTATIONS = 3_000
_WRONG = (
    "the data are no draws of this density: train longer, with less noise, or a larger network; "
    "or the sign, the scale or a Jacobian of the density is wrong."
)


def tail_finding(key: Array, subject: Subject) -> Finding:
    """Judge whether the density falls off outside of the data."""
    found = tail_check(subject.distribution, subject.data, key=key)
    advice = (
        f"the density does not fall off on these rays, from {found.nearest:.2g} times the radius "
        "of the data on: a chain may leave and not come back. Give the network a Gaussian base, "
        "as those of numpyro_score.networks have."
    )
    return judge("tails: share of bad rays", found.value, (0, 0), advice)


def curl_finding(key: Array, subject: Subject) -> list[Finding]:
    """Judge the curl of a score; an energy has none."""
    if not isinstance(subject.distribution, (ScoreDistribution, DiffusionDistribution)):
        return []
    points = subject.data
    if not subject.conditions:
        points = points[:: max(1, -(-subject.num_rows // _CURL_POINTS))]
    probes = None if subject.size <= _EXACT_TRACE else _NUM_PROBES
    found = curl(subject.distribution, points, num_probes=probes, key=key)
    advice = (
        "the score is the gradient of no density: MALA samples that of its line integral, kernels "
        "without a test sample none. Use an energy network, or train longer."
    )
    return [judge("curl of the score", found.value, (-np.inf, _CURL), advice, error=found.error)]


def fisher_finding(key: Array, subject: Subject) -> Finding:
    """Judge whether the score is nearer to that of the data than a Gaussian's."""
    name = "Fisher divergence less a Gaussian's"
    if subject.num_rows < _FEW_ROWS:
        return _too_few(name, subject)
    loss = _exact_loss if subject.size <= _EXACT_TRACE else _probed_loss
    seed = jax.random.randint(key, (), 0, 2**30)
    rows = (subject.z, seed + jnp.arange(subject.num_rows))
    losses = np.asarray(subject.map(loss, rows, slice(None)), np.float64)
    z = np.asarray(subject.z, np.float64).reshape(subject.num_rows, -1)
    reference, tested = subject.halves
    gaussian, scale = _gaussian(z[reference], z[tested])
    off = (losses[tested] - gaussian) / scale
    advice = (
        "a Gaussian fitted to half of the data is nearer to them: the score has learned little, or "
        "its sign or scale is wrong. Data on a grid need noise before this can be told."
    )
    error = off.std(ddof=1) / math.sqrt(len(off))
    return judge(name, off.mean(), (-np.inf, 0.0), advice, error=error)


def _exact_loss(log_density: Any, score: Any, row: tuple[Array, Array]) -> Array:
    """Return tr ∇s + ½ ‖s‖² (Hyvärinen 2005, equation 4)."""
    z, _ = row
    jacobian = jax.jacfwd(score)(z).reshape(z.size, z.size)
    return jnp.trace(jacobian) + 0.5 * jnp.sum(score(z) ** 2)


def _probed_loss(log_density: Any, score: Any, row: tuple[Array, Array]) -> Array:
    """Return the same with Hutchinson's estimate of the trace."""
    z, seed = row
    probes = probes_of(z, _NUM_PROBES, jax.random.key(seed))
    trace = jnp.sum(jax.vmap(lambda v: jnp.sum(v * jax.jvp(score, (z,), (v,))[1]))(probes))
    return trace + 0.5 * jnp.sum(score(z) ** 2)


def _gaussian(fitted: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the losses of a Gaussian at rows, and half the mean square of its scores."""
    mean, size = fitted.mean(0), fitted.shape[1]
    if len(fitted) >= 10 * size:
        precision = np.linalg.inv(np.atleast_2d(np.cov(fitted.T)) + 1e-6 * np.diag(spread(fitted)))
    else:
        precision = np.diag(1 / spread(fitted) ** 2)
    scores = -(rows - mean) @ precision
    squares = 0.5 * np.sum(scores**2, 1)
    return squares - np.trace(precision), float(squares.mean())


def stein_findings(key: Array, subject: Subject) -> list[Finding]:
    """Judge the scale of the score, and a Stein test of at most 500 rows."""
    z = np.asarray(subject.z).reshape(subject.num_rows, -1)
    advice = (
        "variances of the density are off by about this factor; below 0 the sign of the score is "
        "wrong."
    )
    take = slice(None, None, max(1, -(-subject.num_rows // MAX_POINTS)))
    scores = subject.scores
    return [
        scale_finding(z[None], scores[None], advice),
        stein_finding(key, z[take], scores[take], _WRONG, "rows of data"),
    ]


def draws_finding(key: Array, subject: Subject) -> Finding:
    """Judge whether draws of the density, or rows moved by it, can be told from data."""
    draw_key, test_key = jax.random.split(key)
    reference, tested = subject.halves
    draws, how = _draw(draw_key, subject)
    name = f"data against {how} (p-value)"
    if subject.num_rows < 2 * _FEW_ROWS:
        return _too_few(name, subject, 2 * _FEW_ROWS)
    flat = np.asarray(subject.z, np.float64).reshape(subject.num_rows, -1)
    scale = spread(flat[reference])
    pair = [flat[reference] / scale, draws / scale]
    for c in subject.conditions:
        known = np.asarray(c, np.float64).reshape(subject.num_rows, -1)
        known /= spread(known)
        pair = [
            np.concatenate([rows, known[half]], 1)
            for rows, half in zip(pair, (reference, tested), strict=True)
        ]
    lost = ~np.isfinite(pair[1]).all(1)
    if lost.any():
        return Finding(name, math.nan, passed=False, advice=f"{lost.mean():.1%} are not finite.")
    x, y = (rows[:MAX_POINTS] for rows in pair)
    dtype = subject.z.dtype
    found = maximum_mean_discrepancy(
        jnp.asarray(y, dtype),
        jnp.asarray(x, dtype),
        rng_key=test_key,
        num_permutations=_NUM_PERMUTATIONS,
    )
    advice = (
        "plot both: the density lies elsewhere, is wider or narrower, lacks a mode, or gives modes "
        "other weights."
    )
    return judge(name, found.p_value, (LEVEL, np.inf), advice)


def _draw(key: Array, subject: Subject) -> tuple[np.ndarray, str]:
    """Return unconstrained draws, one for each tested row, and what they are."""
    distribution, tested = subject.distribution, subject.halves[1]
    shape = () if subject.conditions else (tested.stop - tested.start,)
    try:
        jax.eval_shape(lambda key: distribution.sample(key, shape), key)
    except NotImplementedError:
        moved = moved_rows(key, subject)
        return np.asarray(moved, np.float64).reshape(len(moved), -1), "data moved by MALA"
    draws = distribution.sample(key, shape)
    if subject.conditions:
        draws = draws[subject.order[tested]]
    if subject.field.transform is not None:
        draws = jax.vmap(subject.field.transform.inv)(draws)
    return np.asarray(draws, np.float64).reshape(len(draws), -1), "draws of its sampler"


def _too_few(name: str, subject: Subject, least: int = _FEW_ROWS) -> Finding:
    return cannot_tell(name, f"{subject.num_rows} rows of data are fewer than {least}")
