"""Conditions that were never learned together, composed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array
from numpyro_score.distributions._composed import concretely
from numpyro_score.distributions.product import Product, as_weights

_ROUNDING = 1e-6


def compose_conditions(
    unconditional: dist.Distribution,
    conditionals: Sequence[dist.Distribution],
    weights: Sequence[Array | float] | Array | None = None,
    **options: Any,
) -> Product:
    r"""Return the distribution of x given several conditions, each of which was learned alone.

    .. math:: p(x \mid c_1, \dots, c_K) \propto p(x)
              \prod_k \left( \frac{p(x \mid c_k)}{p(x)} \right)^{w_k}

    With weights of 1 that is Bayes' rule for conditions that are independent given x. One
    condition with a weight above 1 is guidance without a classifier; a negative weight asks for
    what does *not* meet a condition. Where :math:`\sum_k w_k > 1`, as with two conditions, p(x)
    is divided by, and must have lighter tails than the product of the others: otherwise it is
    refused, see :class:`Product`.

    Sources: N. Liu et al., Compositional visual generation with composable diffusion models, ECCV
    (2022), equations 9 and 11; J. Ho & T. Salimans, Classifier-free diffusion guidance, arXiv
    2207.12598 (2022), equation 6, whose w is :math:`w_1 - 1`.

    :param unconditional: p(x).
    :param conditionals: p(x given c), such as ``EnergyDistribution(..., condition=c)``, one for
        each condition.
    :param weights: :math:`w_k`, a number for each condition; 1 by default.
    :param options: further arguments of :class:`Product`.
    :raises TypeError: one is no distribution.
    :raises ValueError: see :class:`Product`.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_score.distributions import compose_conditions
    >>> seen = [dist.Normal(c / 2, jnp.sqrt(0.5)) for c in (1.0, 3.0)]  # c = x + N(0, 1)
    >>> d = compose_conditions(dist.Normal(0.0, 1.0), seen)  # N(4/3, 1/3)
    >>> d.score(jnp.array(0.0)).round(4).item()
    4.0
    """
    if isinstance(conditionals, dist.Distribution):
        raise TypeError(
            "conditionals must be a list of distributions, one for each condition, got one; a "
            "batch of conditions in one distribution is a batch of answers."
        )
    conditionals = list(conditionals)
    if not conditionals:
        raise ValueError("at least one conditional is needed, got none.")
    powers = as_weights(weights, len(conditionals))
    rest = concretely(lambda powers: 1 - jnp.sum(powers), powers)
    if is_concrete(rest) and abs(float(rest)) < _ROUNDING:
        return Product(conditionals, powers, **options)
    return Product(
        [unconditional, *conditionals], [rest, *concretely(jnp.unstack, powers)], **options
    )
