"""Mean and covariance of rows that arrive in batches."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from numpyro_score._precision import exact_products
from numpyro_score._typing import Array


class Moments(NamedTuple):
    """Running moments: number of rows, their mean ``(d,)``, their scatter about it.

    - **scatter** - sum of outer products ``(d, d)``, or its diagonal ``(d,)``.
    """

    num_rows: Array
    mean: Array
    scatter: Array

    @property
    def covariance(self) -> Array:
        """The unbiased covariance, or the variances; not finite for fewer than two rows."""
        return self.scatter / (self.num_rows - 1)


def init_moments(size: int, dense: bool) -> Moments:
    """Start with no rows."""
    return Moments(jnp.zeros(()), jnp.zeros(size), jnp.zeros((size, size) if dense else size))


@exact_products
def add_rows(moments: Moments, rows: Array) -> Moments:
    """Add rows ``(n, d)``; Chan, Golub & LeVeque (1983), equation 2.1 for several variables."""
    num_new = len(rows)
    num_rows = moments.num_rows + num_new
    mean = rows.mean(0)
    shift = mean - moments.mean
    weight = moments.num_rows * num_new / num_rows
    centred = rows - mean
    if moments.scatter.ndim == 2:
        scatter = centred.T @ centred + weight * jnp.outer(shift, shift)
    else:
        scatter = jnp.sum(centred**2, 0) + weight * shift**2
    return Moments(num_rows, moments.mean + shift * (num_new / num_rows), moments.scatter + scatter)
