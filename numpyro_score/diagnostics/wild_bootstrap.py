"""A test of whether draws follow the density that has a score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.diagnostics._stein_kernel import Points, quadratic_forms
from numpyro_score.diagnostics._stein_points import Preconditioner, stein_points
from numpyro_score.diagnostics.result import Diagnostic

_MINIMUM = 50
_LEVEL = 0.05


@dataclass(frozen=True, repr=False)
class SteinTest(Diagnostic):
    """What :func:`stein_test` returns.

    - **value** - the p-value.
    - **error** - its standard error, from the number of bootstraps.
    - **statistic** - n times the squared discrepancy (V-statistic).
    - **discrepancy** - the kernel Stein discrepancy.
    - **num_draws**, **num_bootstrap**, **flip_probability** - what it took.
    """

    statistic: float
    discrepancy: float
    num_draws: int
    num_bootstrap: int
    flip_probability: float

    @property
    def p_value(self) -> float:
        """The number: the probability of so large a discrepancy, were score and draws right."""
        return self.value

    def reading(self) -> str:
        """Return how to read the number, in one line."""
        of = f"p-value of a discrepancy of {self.discrepancy:.2g} from {self.num_draws:,} draws"
        if self.value < _LEVEL:
            return f"{of}; draws that follow the score give one below {_LEVEL} in 1 of 20 runs"
        return f"{of}; so many draws show no difference, which is no proof that there is none"


def stein_test(
    key: Array,
    score: Callable[[Array], Array] | Array | Any,
    draws: Array,
    *,
    num_bootstrap: int = 1_000,
    flip_probability: float = 0.5,
    lengthscale: float | None = None,
    preconditioner: Preconditioner = None,
    event_dim: int | None = None,
) -> SteinTest:
    r"""Goodness-of-fit test by the kernel Stein discrepancy, with a wild bootstrap.

    The p-value is the share of bootstraps, the draws themselves counted as one, in which

    .. math:: \frac1n \sum_{ij} w_i w_j u(x_i, x_j)

    is no smaller than the statistic, which has all :math:`w_i = 1`. The w are signs. Along a chain
    each differs from the one before it with the ``flip_probability``, so that they are as dependent
    as the draws; chains start anew.

    Source: K. Chwialkowski, H. Strathmann, A. Gretton, A kernel test of goodness of fit, ICML
    (2016), sections 3 and 4.

    :param key: a random key.
    :param score: see :func:`kernel_stein_discrepancy`; likewise ``lengthscale``,
        ``preconditioner`` and ``event_dim``.
    :param draws: shape ``(n, *event_shape)``, in their order, or ``(chains, draws, *event_shape)``.
    :param num_bootstrap: how many; the smallest p-value is 1 / (num_bootstrap + 1).
    :param flip_probability: 0.5 for independent draws; less for a chain.
    :raises ValueError: fewer than 50 draws, and what :func:`kernel_stein_discrepancy` refuses.
    :raises FloatingPointError: a draw or score is not finite.

    >>> import jax
    >>> from numpyro_score.diagnostics import stein_test
    >>> draws = jax.random.normal(jax.random.key(0), (500, 2))
    >>> stein_test(jax.random.key(1), lambda x: -x, draws).p_value > 0.05
    True
    >>> stein_test(jax.random.key(1), lambda x: -x / 2, draws).p_value < 0.01
    True
    """
    check_int(num_bootstrap, "num_bootstrap", 19)
    if isinstance(flip_probability, bool) or not 0 < flip_probability <= 0.5:
        raise ValueError(
            f"flip_probability must be above 0 and at most 0.5, got {flip_probability!r}."
        )
    points, unit, _, num_chains = stein_points(
        score, draws, event_dim, lengthscale, preconditioner, _MINIMUM
    )
    n = len(points.x)
    statistic, p_value = bootstrap(key, points, num_bootstrap, flip_probability, num_chains)
    p = float(p_value)
    statistic_ = unit * float(statistic) / n
    return SteinTest(
        value=p,
        error=math.sqrt(p * (1 - p) / num_bootstrap),
        statistic=statistic_,
        discrepancy=float(np.sqrt(max(statistic_, 0) / n)),
        num_draws=n,
        num_bootstrap=num_bootstrap,
        flip_probability=float(flip_probability),
    )


@partial(jax.jit, static_argnames=("num_bootstrap", "num_chains"))
def bootstrap(
    key: Array, points: Points, num_bootstrap: int, flip_probability: float, num_chains: int = 1
) -> tuple[Array, Array]:
    """Return Σ_ij u(x_i, x_j), and the p-value."""
    n = len(points.x)
    shape = (num_chains, n // num_chains, num_bootstrap)
    first, flips = jax.random.split(key)
    start = jax.random.rademacher(first, (num_chains, 1, num_bootstrap), points.x.dtype)
    flip = jax.random.bernoulli(flips, flip_probability, shape).at[:, 0].set(False)
    signs = start * (1 - 2 * (jnp.cumsum(flip, 1) % 2))
    weights = jnp.concatenate([jnp.ones((n, 1)), signs.reshape(n, num_bootstrap)], 1)
    forms = quadratic_forms(points, weights.astype(points.x.dtype))
    return forms[0], jnp.mean(forms >= forms[0])
