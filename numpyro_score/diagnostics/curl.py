"""How far a score is from being the gradient of anything, at given points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array
from numpyro_score.diagnostics._field import Field, check_finite, map_rows, read
from numpyro_score.diagnostics._probes import keys_of, probes_of
from numpyro_score.diagnostics.result import Diagnostic
from numpyro_score.distributions._curl import MAX_CURL, jacobian_parts


@dataclass(frozen=True, repr=False)
class Curl(Diagnostic):
    """What :func:`curl` returns.

    - **value** - ‖J - Jᵀ‖ / ‖J + Jᵀ‖, root mean squares over the points.
    - **error** - its standard error, over points and probes.
    - **of_jacobian** - ‖J - Jᵀ‖ / ‖J‖, the same on another scale: about twice ``value`` where that
      is small, and at most 2.
    - **num_points** - how many.
    """

    num_points: int

    @property
    def of_jacobian(self) -> float:
        """‖J - Jᵀ‖ / ‖J‖, because ‖2J‖² = ‖J - Jᵀ‖² + ‖J + Jᵀ‖²."""
        return 2 * self.value / math.sqrt(1 + self.value**2) if self.value < math.inf else 2.0

    def reading(self) -> str:
        """Return how to read the number, in one line."""
        if self.value <= MAX_CURL:
            return f"0 for a gradient; small enough for every kernel, up to {MAX_CURL}"
        return (
            f'0 for a gradient; above {MAX_CURL} path="local" leaves a bias of one or two times '
            'this, in posterior sd; path="anchored" is exact for its own density'
        )


def curl(
    score: Callable[[Array], Array] | Any,
    points: Array,
    *,
    num_probes: int | None = None,
    key: Array | None = None,
    event_dim: int | None = None,
) -> Curl:
    r"""Relative curl of a score field, :math:`\|J - J^\top\| / \|J + J^\top\|`.

    J is the Jacobian of the score, and the norms are Frobenius's, root mean squares over the
    points. A score that is the gradient of a log density has a symmetric J. A network that returns
    a vector always has some curl.

    **What it means for MALA.** Along the default path, ``"anchored"``, a Metropolis kernel is exact
    for exp(φ), the density that the anchored line integral gives; curl makes the score a little
    worse as a drift, and φ one of several densities that the field could stand for. Along
    ``path="local"``, and for unadjusted kernels, which follow the field, there is no such density.
    Measured with networks trained by denoising, posterior means along the two paths differed by
    0.02 ± 0.02 standard deviations at a curl of 0.012, 0.03 ± 0.04 at 0.033, 0.07 ± 0.03 at 0.064
    and 0.22 ± 0.06 at 0.097: ``path="local"`` takes 0.03 at most, which is 0.06 as a share of
    ‖J‖ (``of_jacobian``).

    Source: M. F. Hutchinson (1990), A stochastic estimator of the trace of the influence matrix,
    for E‖A v‖² = ‖A‖².

    :param score: ∇ log p of one event; or a distribution, whose score is taken as it is, with one
        condition for each point where it has conditions.
    :param points: shape ``(n, *event_shape)`` or ``(chains, draws, *event_shape)``: where to look,
        such as data or draws.
    :param num_probes: random vectors for each point, in place of all d derivatives; needs a
        ``key``.
    :param event_dim: see :func:`kernel_stein_discrepancy`.
    :raises ValueError: fewer than two points, no ``key``, or shapes that do not fit.
    :raises FloatingPointError: a point or a derivative is not finite.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.diagnostics import curl
    >>> points = jax.random.normal(jax.random.key(0), (20, 2))
    >>> curl(lambda x: -x + 0.1 * jnp.array([x[1], -x[0]]), points)
    Curl(0.1 ± 0: 0 for a gradient; above 0.03 path="local" leaves a bias of one or two times this,
    in posterior sd; path="anchored" is exact for its own density)
    """
    rows, field = read(score, points, event_dim, minimum=2, name="points", unconstrain=False)
    keys = keys_of(len(rows.x), num_probes, key)
    odd, even = (np.asarray(a, np.float64) for a in _parts(field, rows.x, keys, num_probes))
    check_finite(odd[:, None] + even[:, None], "derivative of the score")
    if odd.sum() + even.sum() == 0:
        raise ValueError("the score is the same at all points, so that it has no curl to speak of.")
    if even.sum() == 0:
        return Curl(math.inf, math.nan, len(odd))
    ratio = odd.sum() / even.sum()
    error = np.std(odd - ratio * even, ddof=1) / (even.mean() * math.sqrt(len(odd)))
    value = math.sqrt(ratio)
    return Curl(value, float(math.sqrt(ratio + error) - value), len(odd))


@eqx.filter_jit
def _parts(field: Field, x: Array, keys: Array, num_probes: int | None) -> tuple[Array, Array]:
    def parts(score: Callable[[Array], Array], x: Array, key: Array) -> tuple[Array, Array]:
        probes = probes_of(x, num_probes, key)
        return jacobian_parts(lambda x: jnp.asarray(score(x)), x, probes, x.ndim)

    return map_rows(field, parts, x, keys)
