"""How far a score is from that of held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from numpyro_score._typing import Array
from numpyro_score.diagnostics._field import Field, check_finite, map_rows, read, read_scores
from numpyro_score.diagnostics._probes import keys_of, probes_of
from numpyro_score.diagnostics.result import Diagnostic

_MINIMUM = 20
_ROWS_PER_DIMENSION = 10


@dataclass(frozen=True, repr=False)
class FisherDivergence(Diagnostic):
    """What :func:`fisher_divergence` returns.

    - **value** - against a reference, the Fisher divergence ½ E‖s_p - s‖²; without one, that of the
      score less that of ``baseline``: below 0 for a score that is nearer to the data's.
    - **error** - its standard error.
    - **relative** - ``value`` over ½ E‖s_p‖² of the reference, or of the baseline.
    - **baseline** - ``"reference"``, or what was fitted to the data: ``"Gaussian"`` or
      ``"independent Gaussians"``.
    """

    relative: float
    baseline: str

    def reading(self) -> str:
        """Return how to read the number, in one line."""
        if self.baseline == "reference":
            return (
                f"0 for the reference score; {self.relative:.2g} of that of a score that is 0 "
                "everywhere"
            )
        name = f"{self.baseline} fitted to the data"
        if abs(self.value) < 2 * self.error:
            return f"no better and no worse than {name}"
        return f"{'better' if self.value < 0 else 'worse'} than {name}"


def fisher_divergence(
    score: Callable[[Array], Array] | Any,
    data: Array,
    *,
    reference: Callable[[Array], Array] | Array | Any | None = None,
    num_probes: int | None = None,
    key: Array | None = None,
    event_dim: int | None = None,
) -> FisherDivergence:
    r"""Fisher divergence of a score on data that it was not learned from.

    With the ``reference`` score of the data it is the mean of
    :math:`\tfrac12 \|s_p(x) - s(x)\|^2`. Without, it is known up to a constant of the data,

    .. math:: J(s) = E\left[\operatorname{tr} \nabla_x s(x) + \tfrac12 \|s(x)\|^2\right]
              = D(s) - \tfrac12 E\|s_p\|^2,

    so that what is returned is the difference from the Gaussian with the mean and covariance of the
    data, :math:`J(s) - J(s_G) = D(s) - D(s_G)` with :math:`J(s_G) = -\tfrac12 \operatorname{tr}
    \Sigma^{-1}`, row by row. A score learned well is not above 0. (The Gaussian has seen these
    rows, the score has not: that costs the score about d / n of ``relative``.) With fewer than ten
    rows for each dimension the Gaussian is one of independent coordinates.

    It sees places where data are, and nothing between modes or outside of them. The density of the
    data must be smooth: on a grid, or in a subspace, J has no lower bound.

    Sources: A. Hyvärinen, Estimation of non-normalized statistical models by score matching,
    Journal of Machine Learning Research 6 (2005), equations 2 and 4; M. F. Hutchinson (1990) for
    ``num_probes``.

    :param score: ∇ log p of one event, or a distribution; with a constraint, in its unconstrained
        coordinates; with a condition, one for each row of data.
    :param data: held-out data, shape ``(n, *event_shape)`` or ``(chains, draws, *event_shape)``.
    :param reference: the score of the data, like ``score``, or its values there.
    :param num_probes: random vectors for the trace, in place of all d derivatives; needs a ``key``.
    :param event_dim: see :func:`kernel_stein_discrepancy`.
    :return: in units of 1 / data², summed over an event.
    :raises ValueError: fewer than 20 rows, a constant coordinate, or shapes that do not fit.
    :raises FloatingPointError: a row or score is not finite.

    >>> import jax
    >>> from numpyro_score.diagnostics import fisher_divergence
    >>> data = jax.random.normal(jax.random.key(0), (2000, 2))
    >>> half = fisher_divergence(lambda x: -x / 2, data, reference=lambda x: -x)
    >>> abs(half.value - 0.25) < 3 * half.error, round(half.relative, 2)
    (True, 0.25)
    >>> fisher_divergence(lambda x: -x / 2, data).reading()
    'worse than Gaussian fitted to the data'
    """
    if reference is not None:
        return _against(score, data, reference, event_dim)
    rows, field = read(score, data, event_dim, minimum=_MINIMUM, name="data")
    keys = keys_of(len(rows.x), num_probes, key)
    losses, scores = _losses(field, rows.x, keys, num_probes)
    check_finite(scores, "score")
    check_finite(losses[:, None], "derivative of the score")
    gaussian, scale, name = _gaussian(np.asarray(rows.flat, np.float64))
    off = np.asarray(losses, np.float64) - gaussian
    return _result(off, scale, name)


def _against(score: Any, data: Array, reference: Any, event_dim: int | None) -> FisherDivergence:
    # The one that is a distribution tells the axes of an event to the other.
    axes = {d.event_dim for d in (score, reference) if isinstance(d, dist.Distribution)}
    if event_dim is None and len(axes) == 1:
        (event_dim,) = axes
    _, found = read_scores(score, data, event_dim, minimum=_MINIMUM)
    _, known = read_scores(reference, data, event_dim, minimum=_MINIMUM)
    if found.shape != known.shape:
        raise ValueError("score and reference must both be distributions of one support.")
    sizes = (np.asarray(a, np.float64).reshape(len(a), -1) ** 2 for a in (known, found - known))
    scale, rows = (0.5 * np.sum(a, 1) for a in sizes)
    return _result(rows, float(scale.mean()), "reference")


def _result(rows: np.ndarray, scale: float, baseline: str) -> FisherDivergence:
    value, error = float(rows.mean()), float(rows.std(ddof=1) / math.sqrt(len(rows)))
    return FisherDivergence(value, error, value / scale if scale else math.nan, baseline)


@eqx.filter_jit
def _losses(field: Field, x: Array, keys: Array, num_probes: int | None) -> tuple[Array, Array]:
    """Return tr ∇s + ½ ‖s‖², and s, of each row."""

    def loss(score: Callable[[Array], Array], x: Array, key: Array) -> tuple[Array, Array]:
        value, derivative = jax.linearize(score, x)
        probes = probes_of(x, num_probes, key)
        trace = jnp.sum(jax.lax.map(lambda v: jnp.sum(v * derivative(v)), probes))
        return trace + 0.5 * jnp.sum(value**2), value

    return map_rows(field, loss, x, keys)


def _gaussian(x: np.ndarray) -> tuple[np.ndarray, float, str]:
    """Return tr ∇s + ½ ‖s‖² of each row for a Gaussian's score, ½ E‖s‖², and its name."""
    n, size = x.shape
    away, variance = x - x.mean(0), x.var(0)
    if not (variance > 0).all():
        raise ValueError(
            f"coordinate {variance.argmin()} of the data is constant: such data have no density, "
            "and the Fisher divergence no lower bound. Leave it out, or add noise."
        )
    if n < _ROWS_PER_DIMENSION * size:
        scores, trace = away / variance, np.sum(1 / variance)
        return 0.5 * np.sum(scores**2, 1) - trace, float(trace / 2), "independent Gaussians"
    precision = np.linalg.inv(np.atleast_2d(np.cov(x.T, bias=True)))
    scores, trace = away @ precision, np.trace(precision)
    return 0.5 * np.sum(scores**2, 1) - trace, float(trace / 2), "Gaussian"
