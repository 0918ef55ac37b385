"""Whether a log density is finite, agrees with its score, its Jacobian and its normalizer."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.transforms import ComposeTransform

from numpyro_score._typing import Array
from numpyro_score.diagnostics._proposals import Proposals
from numpyro_score.diagnostics._subject import Subject
from numpyro_score.diagnostics.findings import Finding, cannot_tell, judge
from numpyro_score.distributions import DiffusionDistribution, ScoreDistribution

_ROWS = 1_000
# The flow of a diffusion is an ordinary differential equation for each.
_FLOWS = 100
_STEP = 0.05
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(3)
# Of a log density and its own derivative; of a line integral and a field with the curl of a
# network; of the flow of a learned score, which need not solve the equation that links its times.
_OFF = 0.05
_OFF_SCORE = 0.15
_OFF_FLOW = 0.3
_OFF_JACOBIAN = 0.01
_OFF_NORMALIZER = 0.1
_MAX_SIZE = 8
_NUM_PROPOSALS = 4_000
_MIN_WEIGHTS = 200
_MAX_JACOBIAN = 32


def _some(subject: Subject) -> np.ndarray:
    """Return the numbers of the rows at which a log density is evaluated."""
    most = _FLOWS if isinstance(subject.distribution, DiffusionDistribution) else _ROWS
    return np.arange(subject.num_rows)[:: max(1, -(-subject.num_rows // most))]


def _log_density_at(log_density: Any, score: Any, z: Array) -> Array:
    return log_density(z)


def finite_findings(subject: Subject) -> list[Finding]:
    """Judge whether log density and score are finite at the data."""
    rows = _some(subject)
    values = subject.map(_log_density_at, subject.z[rows], rows)
    lost = int((~np.isfinite(np.asarray(values))).sum())
    advice = (
        "the density of the data is 0 or NaN there: look at the network, and at the support. The "
        "other lines cannot be told."
    )
    found = [judge("rows without a finite log density", lost, (0, 0), advice)]
    lost = int((~np.isfinite(subject.scores).all(1)).sum())
    return [*found, judge("rows without a finite score", lost, (0, 0), advice)]


def difference_finding(key: Array, subject: Subject) -> Finding:
    """Judge whether differences of the log density are integrals of the score.

    Along short segments from a row of the data towards another, by Gauss-Legendre with 3 nodes.
    """
    name = "log density against score (off by)"
    rows = _some(subject)
    z = np.asarray(subject.z, float)
    other = z[np.asarray(jax.random.permutation(key, len(z)))[rows]]
    direction = jnp.asarray(_STEP * (other - z[rows]), subject.z.dtype)

    both = jnp.stack([subject.z[rows], direction], 1)
    found, integral, size = (np.asarray(x, float) for x in subject.map(_difference, both, rows))
    scale = math.sqrt(np.mean(integral**2))
    if scale == 0 or not np.isfinite(scale):
        return cannot_tell(name, "the score is 0, or not finite, at all rows")
    rounding = 4 * float(jnp.finfo(subject.z.dtype).eps) * np.median(size) / scale
    limit = _OFF
    if isinstance(subject.distribution, ScoreDistribution):
        limit = _OFF_SCORE
    if isinstance(subject.distribution, DiffusionDistribution):
        limit = _OFF_FLOW
    if rounding > limit:
        return cannot_tell(name, "the log density is so large that rounding hides its differences")
    advice = (
        "log_prob is not what the score is the gradient of: a sign, a factor or a Jacobian is "
        "wrong in one of them, or the field has too much curl. A Metropolis test will be wrong."
    )
    off = math.sqrt(np.mean((found - integral) ** 2)) / scale
    return judge(name, off, (-np.inf, limit), advice)


def _difference(log_density: Any, score: Any, row: Array) -> tuple[Array, Array, Array]:
    z, direction = row
    ends = [log_density(z + sign * direction) for sign in (1.0, -1.0)]
    integral = sum(
        weight * jnp.sum(score(z + node * direction) * direction)
        for node, weight in zip(_NODES, _WEIGHTS, strict=True)
    )
    return ends[0] - ends[1], jnp.asarray(integral), jnp.abs(ends[0])


def jacobian_finding(subject: Subject) -> list[Finding]:
    """Judge the Jacobians that transforms tell of themselves, against their derivatives."""
    base, transforms = subject.distribution, []
    while isinstance(base, (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)):
        base = base.base_dist
    if isinstance(base, dist.TransformedDistribution):
        transforms = list(base.transforms)
    if not transforms or math.prod(subject.distribution.event_shape) > _MAX_JACOBIAN:
        return []
    transform = ComposeTransform(transforms)
    x = subject.data[subject.order[:100]]

    def compare(x: Array) -> Array:
        y = transform.inv(x)
        size = math.prod(jnp.shape(y))
        if size != math.prod(jnp.shape(x)):
            return jnp.zeros(())
        derivative = jax.jacfwd(lambda y: jnp.ravel(transform(y.reshape(jnp.shape(x)))))
        exact = jnp.linalg.slogdet(derivative(jnp.ravel(y)))[1]
        return jnp.abs(jnp.sum(transform.log_abs_det_jacobian(y, transform(y))) - exact)

    off = np.asarray(jax.jit(jax.vmap(compare))(x)).max()
    advice = (
        "log_abs_det_jacobian of a transform is not that of its derivative: the density is one of "
        "other coordinates."
    )
    return [judge("Jacobian of the transforms (off by)", off, (-np.inf, _OFF_JACOBIAN), advice)]


def normalizer_finding(key: Array, subject: Subject) -> list[Finding]:
    """Judge whether a normalized density integrates to 1, by importance sampling near the data."""
    name = "log of the integral of the density"
    if not subject.is_normalized or subject.conditions:
        return []
    if getattr(getattr(subject.distribution, "network", None), "is_bound", False):
        return [cannot_tell(name, "log_prob is a lower bound, which integrates to less than 1")]
    if subject.size > _MAX_SIZE:
        why = f"importance sampling does not reach {subject.size} dimensions"
        return [cannot_tell(name, why)]
    num = _NUM_PROPOSALS
    if isinstance(subject.distribution, DiffusionDistribution):
        num //= 4
    flat = subject.z.reshape(subject.num_rows, -1)
    proposals = Proposals.around(flat[subject.halves[0]], wide=True)
    draws = proposals.sample(key, num)
    log_q = np.asarray(proposals.log_density(draws), float)
    shaped = draws.reshape(num, *subject.z.shape[1:])
    log_p = subject.map(_log_density_at, shaped, slice(0, num))
    logs = np.asarray(log_p, float) - log_q
    logs = np.where(np.isnan(logs), -np.inf, logs)
    weights = np.exp(logs - logs.max())
    if weights.sum() ** 2 / np.sum(weights**2) < _MIN_WEIGHTS:
        return [cannot_tell(name, "too few weights of importance sampling count")]
    value = math.log(weights.mean()) + logs.max()
    error = weights.std() / weights.mean() / math.sqrt(num)
    advice = (
        "log_prob lacks its normalizer, or has a wrong one, or much of the density lies where no "
        "data are. LOO and Bayes factors would be wrong."
    )
    return [judge(name, value, (-_OFF_NORMALIZER, _OFF_NORMALIZER), advice, error=error)]
