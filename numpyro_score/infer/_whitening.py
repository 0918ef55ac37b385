"""Coordinates v in which the metric is the identity: z moves by L v, for the metric L Lᵀ."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from numpyro_score._typing import Array


class DiagonalWhitening(NamedTuple):
    """Whitening by one standard deviation for each parameter.

    - **inverse_scale** - 1 / standard deviation, ``(d,)``. Kept as a reciprocal because XLA on a
      CPU copies a product, and all that it was computed from (the normal numbers), into each of
      its uses, but a quotient it computes once. That is worth a factor of two for a model of a
      few parameters with many chains.
    """

    inverse_scale: Array

    def unwhiten(self, v: Array) -> Array:
        """Return L v."""
        return v / self.inverse_scale

    def whiten_gradient(self, gradient: Array) -> Array:
        """Return Lᵀ g."""
        return gradient / self.inverse_scale

    def compose(self, factor: Array) -> DiagonalWhitening:
        """Return the whitening by L T, for a diagonal T given as a vector."""
        return DiagonalWhitening(self.inverse_scale / factor)

    def covariance(self) -> Array:
        """Return the variances L Lᵀ, ``(d,)``."""
        return self.inverse_scale**-2


class DenseWhitening(NamedTuple):
    """Whitening by a full matrix.

    - **scale_tril** - L, a lower triangle ``(d, d)``.
    """

    scale_tril: Array

    def unwhiten(self, v: Array) -> Array:
        """Return L v."""
        return self.scale_tril @ v

    def whiten_gradient(self, gradient: Array) -> Array:
        """Return Lᵀ g."""
        return gradient @ self.scale_tril

    def compose(self, factor: Array) -> DenseWhitening:
        """Return the whitening by L T, for a lower triangle T."""
        return DenseWhitening(self.scale_tril @ factor)

    def covariance(self) -> Array:
        """Return L Lᵀ, ``(d, d)``."""
        return self.scale_tril @ jnp.swapaxes(self.scale_tril, -2, -1)


Whitening = DiagonalWhitening | DenseWhitening
