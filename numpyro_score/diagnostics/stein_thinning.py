"""A few draws that stand for many, by their Stein discrepancy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.diagnostics._stein_kernel import Points, against, diagonal
from numpyro_score.diagnostics._stein_points import Preconditioner, stein_points


def stein_thinning(
    score: Callable[[Array], Array] | Array | Any,
    draws: Array,
    num_points: int,
    *,
    lengthscale: float | None = None,
    preconditioner: Preconditioner = None,
    event_dim: int | None = None,
) -> Array:
    r"""Numbers of the draws that together have the least kernel Stein discrepancy, one by one.

    The i-th minimizes

    .. math:: \tfrac12 u(x, x) + \sum_{j < i} u(x_{\pi(j)}, x)

    over all draws, so that one that was taken may be taken again. It makes up for a bias, such as
    that of a burn-in left in or of ULA, as far as draws lie where they should. It is as blind as
    the discrepancy for how draws are shared out among modes that lie apart.

    The cost is ``num_points`` n d, and the memory n.

    Source: M. Riabiz et al., Optimal thinning of MCMC output, Journal of the Royal Statistical
    Society B 84 (2022), algorithm 1.

    :param score: see :func:`kernel_stein_discrepancy`; likewise ``lengthscale``,
        ``preconditioner`` and ``event_dim``.
    :param draws: shape ``(n, *event_shape)`` or ``(chains, draws, *event_shape)``.
    :param num_points: how many numbers to return.
    :return: integers of shape ``(num_points,)``, in the order of the choice; for chains they count
        through ``draws.reshape(-1, *event_shape)``.
    :raises ValueError: what :func:`kernel_stein_discrepancy` refuses.
    :raises FloatingPointError: a draw or score is not finite.

    >>> import jax
    >>> from numpyro_score.diagnostics import kernel_stein_discrepancy, stein_thinning
    >>> draws = jax.random.normal(jax.random.key(0), (500, 2))
    >>> few = draws[stein_thinning(lambda x: -x, draws, 20)]
    >>> discrepancy = lambda x: float(kernel_stein_discrepancy(lambda x: -x, x, lengthscale=1.5))
    >>> discrepancy(few) < discrepancy(draws[:20]) / 2
    True
    """
    check_int(num_points, "num_points", 1)
    found = stein_points(score, draws, event_dim, lengthscale, preconditioner)
    return _choose(found.points, num_points)


@partial(jax.jit, static_argnames="num_points")
def _choose(points: Points, num_points: int) -> Array:
    def choose(sums: Array, _: None) -> tuple[Array, Array]:
        i = jnp.argmin(sums)
        return sums + against(points, i), i

    return jax.lax.scan(choose, diagonal(points) / 2, None, num_points)[1]
