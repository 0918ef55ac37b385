"""The kernel Stein discrepancy between draws and a density known by its score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.diagnostics._stein_kernel import diagonal, pair_sums, shifted_sums
from numpyro_score.diagnostics._stein_points import Preconditioner, stein_points
from numpyro_score.diagnostics.result import Diagnostic

Statistic = Literal["V", "U"]
# Those of exact draws are as skewed as a χ² of one degree of freedom at most: one of 200 is beyond.
_NUM_ERRORS = 5.0


@dataclass(frozen=True, repr=False)
class SteinDiscrepancy(Diagnostic):
    """What :func:`kernel_stein_discrepancy` returns.

    - **value** - the discrepancy, at least 0: the square root of the statistic.
    - **error** - how much larger it would be, were its square one standard error larger.
    - **squared** - estimate of the squared discrepancy without bias, the U-statistic; it may be
      negative.
    - **squared_error** - its standard error, for independent draws.
    - **chance** - about what ``value`` would be for as many exact, independent draws.
    - **degenerate** - whether ``squared`` is within 5 of the standard errors that exact draws
      give it: then it is no normal variable, and only :func:`stein_test` has a p-value.
    - **statistic** - ``"V"`` or ``"U"``.
    - **num_draws** - how many draws it took.
    - **lengthscale** - ℓ, in the coordinates of the preconditioner.
    """

    squared: float
    squared_error: float
    chance: float
    degenerate: bool
    statistic: Statistic
    num_draws: int
    lengthscale: float

    def reading(self) -> str:
        """Return how to read the number, in one line."""
        exact = f"{self.num_draws:,} exact, independent draws have about {self.chance:.2g}"
        if self.degenerate:
            return f"no more than chance: {exact}"
        return f"draws and score disagree, or the draws are dependent: {exact}"


def kernel_stein_discrepancy(
    score: Callable[[Array], Array] | Array | Any,
    draws: Array,
    *,
    statistic: Statistic = "V",
    lengthscale: float | None = None,
    preconditioner: Preconditioner = None,
    num_diagonals: int | None = None,
    event_dim: int | None = None,
) -> SteinDiscrepancy:
    r"""Distance between draws and the density that has this score; no normalizer is needed.

    The square root of the mean over pairs of draws of

    .. math:: u(x, y) = s(x) \cdot s(y)\, k + s(x) \cdot \nabla_y k + s(y) \cdot \nabla_x k
              + \operatorname{tr} \nabla_x \nabla_y k

    with the inverse multiquadric :math:`k = (1 + \|x - y\|^2 / \ell^2)^{-1/2}`, for which a
    discrepancy that tends to 0 means convergence. The V-statistic takes all pairs, each draw with
    itself included: it is never negative, and falls as :math:`n^{-1/2}` for n draws of the density
    itself. The U-statistic leaves a draw's pair with itself out: no bias, but the root of a
    negative estimate is given as 0.

    **What it sees.** A wrong place, scale or shape, also of a score that is no gradient. It sees
    little of how draws are shared out among modes that lie apart, because the score does not say.
    It takes scores by their length: coordinates of very different scales need a ``preconditioner``.

    **Standard errors** are Hoeffding's, from Var E[u | x] and Var u; they hold where draws follow
    the density as well as where they do not. Draws must be independent: thin a chain first to about
    as many draws as its effective sample size, or take :func:`stein_test`, which knows of
    dependence.

    **Cost.** n² d for all pairs, in blocks: 100,000 draws in 50 dimensions take about a minute of
    one core, dealt out to two, and less than 1 GiB. With ``num_diagonals`` J, the J n pairs of
    draws whose numbers differ by one of J shifts, spread evenly from 0 to n/2, so that they are far
    apart in a chain: an incomplete U-statistic, linear in n.

    Sources: Q. Liu, J. Lee, M. Jordan, A kernelized Stein discrepancy for goodness-of-fit tests,
    ICML (2016), equations 6 and 14; J. Gorham & L. Mackey, Measuring sample quality with kernels,
    ICML (2017), for the kernel; W. Hoeffding, A class of statistics with asymptotically normal
    distribution (1948), equation 5.13, for the variance; G. Blom, Some properties of incomplete
    U-statistics, Biometrika (1976).

    :param score: ∇ log p of one event; or its values at the draws, of their shape; or a
        distribution. Draws of a distribution with a constraint are compared in its unconstrained
        coordinates; one with a condition needs as many conditions as draws.
    :param draws: shape ``(n, *event_shape)``, or ``(chains, draws, *event_shape)``, all chains
        taken together.
    :param statistic: ``"V"`` or ``"U"``.
    :param lengthscale: ℓ, in units of the draws (of their standard deviation, with a
        preconditioner); by default the median distance of two draws (of at most 1,000 of them).
    :param preconditioner: covariance M: the discrepancy is that of z = L⁻¹ x with M = L Lᵀ, the
        same in whatever units x is. ``"diagonal"`` and ``"dense"`` take that of the draws; a matrix
        ``(d, d)``, of x in a row.
    :param num_diagonals: J, of at most (n - 1) / 2; only with ``statistic="U"``.
    :param event_dim: number of axes of an event; by default that of the distribution, and 1 for
        draws of two axes. With any other score draws of more axes need it: chains of vectors look
        like images.
    :return: the discrepancy, in units of 1 / draws (none, with a preconditioner).
    :raises ValueError: fewer than two draws, draws that are all the same, scores of another shape,
        or arguments that do not fit.
    :raises FloatingPointError: a draw or score is not finite.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.diagnostics import kernel_stein_discrepancy
    >>> draws = jax.random.normal(jax.random.key(0), (1000, 2))
    >>> good = kernel_stein_discrepancy(lambda x: -x, draws)
    >>> bad = kernel_stein_discrepancy(lambda x: -x / 2, draws)
    >>> good.value < 0.1 < bad.value, good.degenerate, bad.degenerate
    (True, True, False)
    """
    if statistic not in get_args(Statistic):
        raise ValueError(f'statistic must be "V" or "U", got {statistic!r}.')
    if num_diagonals is not None and statistic == "V":
        raise ValueError(
            'num_diagonals leaves out the pairs that make a V-statistic: give statistic="U".'
        )
    points, unit, lengthscale, _ = stein_points(
        score, draws, event_dim, lengthscale, preconditioner
    )
    n = len(points.x)
    if num_diagonals is None:
        partners, (sums, squares) = n - 1, pair_sums(points)
    else:
        partners = 2 * num_diagonals
        sums, squares = shifted_sums(points, jnp.asarray(_shifts(num_diagonals, n)))
    rows = unit * np.asarray(sums, np.float64) / partners
    second = unit**2 * np.sum(np.asarray(squares, np.float64)) / (n * partners)
    itself = unit * float(np.mean(np.asarray(diagonal(points), np.float64)))
    squared = float(rows.mean())
    error, exact_error = _errors(rows, second, partners)
    if statistic == "V":
        mean, chance = squared * (n - 1) / n + itself / n, math.sqrt(itself / n)
    else:
        mean, chance = squared, math.sqrt(exact_error)
    value = math.sqrt(max(mean, 0))
    return SteinDiscrepancy(
        value=value,
        error=math.sqrt(value**2 + error) - value,
        squared=squared,
        squared_error=error,
        chance=chance,
        degenerate=squared < _NUM_ERRORS * exact_error,
        statistic=statistic,
        num_draws=n,
        lengthscale=lengthscale,
    )


def _errors(rows: np.ndarray, second: float, partners: int) -> tuple[float, float]:
    """Return standard errors of a U-statistic: as it is, and for draws of the density itself.

    Its variance is 2 (ζ₂ + 2 (m - 1) ζ₁) / (n m), where each draw has m partners, ζ₂ = Var u, and
    ζ₁ = Var E[u | x], which is 0 for draws of the density itself. Means over partners have the
    variance ζ₁ + (ζ₂ - ζ₁) / m.
    """
    n = len(rows)
    zeta_2 = max(second - rows.mean() ** 2, 0.0)
    zeta_1 = max((partners * rows.var(ddof=1) - zeta_2) / max(partners - 1, 1), 0.0)
    variance = 2 * (zeta_2 + 2 * (partners - 1) * zeta_1) / (n * partners)
    return math.sqrt(variance), math.sqrt(2 * second / (n * partners))


def _shifts(num_diagonals: int, n: int) -> np.ndarray:
    check_int(num_diagonals, "num_diagonals", 1)
    largest = (n - 1) // 2
    if num_diagonals > largest:
        raise ValueError(
            f"num_diagonals must be at most (n - 1) / 2, {largest} for {n} draws, got "
            f"{num_diagonals}; leave it out for all pairs."
        )
    return np.ceil(np.arange(1, num_diagonals + 1) * largest / num_diagonals).astype(int)
