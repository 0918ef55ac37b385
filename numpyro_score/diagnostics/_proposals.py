"""Draws near those of a reference: a kernel density estimate, to jump between modes by."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._precision import exact_products
from numpyro_score._typing import Array

_NEIGHBOURS = 5
_MAX_CENTRES = 500
# A share of wider kernels, so that no place near the data has a density of nearly 0.
_WIDE, _WIDER = 0.25, 3.0


class Proposals(NamedTuple):
    """A mixture of normals around centres, in coordinates ``scale`` times standard ones.

    - **centres** - ``(n, d)``; **scale** - ``(d,)``; **width** - of the kernels, in units of it.
    - **wide** - the share of kernels that are three times as wide.
    """

    centres: Array
    scale: Array
    width: Array
    wide: float

    @classmethod
    def around(cls, rows: Array, *, wide: bool = False) -> Proposals:
        """Return proposals around rows ``(n, d)``, as wide as their neighbours are far."""
        centres = jnp.asarray(rows)[:_MAX_CENTRES]
        scale = spread(np.asarray(rows))
        x = np.asarray(centres, np.float64) / scale
        square = np.sum(x**2, 1)
        distance = np.maximum(square[:, None] + square - 2 * x @ x.T, 0)
        k = min(_NEIGHBOURS, len(x) - 1)
        near = math.sqrt(np.median(np.partition(distance, k, 1)[:, k]))
        width = max(near / math.sqrt(x.shape[1]), 1e-3)
        dtype = centres.dtype
        return cls(
            centres,
            jnp.asarray(scale, dtype),
            jnp.asarray(width, dtype),
            _WIDE if wide else 0.0,
        )

    def sample(self, key: Array, num: int) -> Array:
        """Return draws, ``(num, d)``."""
        which, noise, width = jax.random.split(key, 3)
        centres = self.centres[jax.random.randint(which, (num,), 0, len(self.centres))]
        wide = jax.random.uniform(width, (num, 1)) < self.wide
        widths = self.width * jnp.where(wide, _WIDER, 1.0)
        return centres + self.scale * widths * jax.random.normal(noise, centres.shape)

    @exact_products
    def log_density(self, rows: Array) -> Array:
        """Return the log density of rows ``(n, d)``, up to a number where none is wide."""
        # Distances come from inner products, which lose digits far from the origin.
        mean = self.centres.mean(0)
        x, centres = ((values - mean) / self.scale for values in (rows, self.centres))
        square = jnp.sum(x**2, 1)[:, None] + jnp.sum(centres**2, 1) - 2 * x @ centres.T
        square = jnp.maximum(square, 0)
        size = centres.shape[1]

        def mixture(width: Array) -> Array:
            logs = -0.5 * square / width**2 - size * jnp.log(width)
            return jax.scipy.special.logsumexp(logs, axis=1)

        constant = jnp.log(self.scale).sum() + 0.5 * size * math.log(2 * math.pi)
        value = mixture(self.width)
        if self.wide:
            wide = mixture(_WIDER * self.width) + math.log(self.wide)
            value = jnp.logaddexp(value + math.log1p(-self.wide), wide)
        return value - math.log(len(centres)) - constant


def spread(rows: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each coordinate; a constant one has a thousandth."""
    sd = np.std(np.asarray(rows, np.float64), 0)
    return np.maximum(sd, 1e-3 * max(sd.max(), 1e-12))
