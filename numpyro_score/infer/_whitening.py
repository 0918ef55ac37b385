"""Coordinates v in which the metric is the identity: z moves by L v, for the metric L Lᵀ.

A placer puts the proposals of one step: ``place(v)`` is z + L v, and ``place.settle(v, moved)`` is
where the chain is after the step, with v = 0 where it did not move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.mcmc.metrics import LowRankInverseMassMatrix
from jax.scipy.linalg import solve_triangular

from numpyro_score._precision import exact_products
from numpyro_score._typing import Array

# A ref keeps XLA from making one piece of a step. For 10 parameters a step takes twice as long with
# it (one chain; 1.1 times with 64), for 31 the same, for 100 four fifths with 64 chains.
_SMALL = 32


class DiagonalWhitening(NamedTuple):
    """Whitening by one standard deviation for each parameter.

    - **inverse_scale** - 1 / standard deviation, ``(d,)``. Kept as a reciprocal because XLA on a
      CPU copies a product, and all that it was computed from (the normal numbers), into each of
      its uses, but a quotient it computes once. That is worth a factor of two for a model of a
      few parameters with many chains.
    """

    inverse_scale: Array

    def placer(self, z: Array, remember: bool = True) -> DiagonalPlacer:
        """Return how a step at ``z`` places its proposal."""
        return DiagonalPlacer(z, self.inverse_scale)

    def whiten_gradient(self, gradient: Array) -> Array:
        """Return Lᵀ g."""
        return gradient / self.inverse_scale

    def whiten(self, z: Array) -> Array:
        """Return L⁻¹ z for rows z, ``(…, d)``."""
        return z * self.inverse_scale

    def compose(self, factor: Array) -> DiagonalWhitening:
        """Return the whitening by L T, for a diagonal T given as a vector."""
        return DiagonalWhitening(self.inverse_scale / factor)

    def covariance(self) -> Array:
        """Return the variances L Lᵀ, ``(d,)``."""
        return self.inverse_scale**-2


@dataclass(frozen=True)
class DiagonalPlacer:
    """Placement that is cheaper to compute again than to remember."""

    z: Array
    inverse_scale: Array

    def __call__(self, v: Array) -> Array:
        """Return z + L v."""
        return self.z + v / self.inverse_scale

    def settle(self, v: Array, moved: Array) -> Array:
        """Return the position after the step: ``z`` itself, to the bit, where v is 0."""
        return self(v)


class DenseWhitening(NamedTuple):
    """Whitening by a full matrix.

    - **scale_tril** - L, a lower triangle ``(d, d)``.
    """

    scale_tril: Array

    def placer(self, z: Array, remember: bool = True) -> RememberingPlacer | RecomputingPlacer:
        """Return how a step at ``z`` places its proposal; see :func:`place_by_product`."""
        return place_by_product(self, z, remember)

    @exact_products
    def unwhiten(self, v: Array) -> Array:
        """Return L v."""
        return self.scale_tril @ v

    @exact_products
    def whiten_gradient(self, gradient: Array) -> Array:
        """Return Lᵀ g."""
        return gradient @ self.scale_tril

    def whiten(self, z: Array) -> Array:
        """Return L⁻¹ z for rows z, ``(…, d)``."""
        return solve_triangular(self.scale_tril, z.T, lower=True).T

    @exact_products
    def compose(self, factor: Array) -> DenseWhitening:
        """Return the whitening by L T, for a lower triangle T."""
        return DenseWhitening(self.scale_tril @ factor)

    @exact_products
    def covariance(self) -> Array:
        """Return L Lᵀ, ``(d, d)``."""
        return self.scale_tril @ jnp.swapaxes(self.scale_tril, -2, -1)


class LowRankWhitening(NamedTuple):
    """Whitening by standard deviations, and by a few directions that are longer or shorter.

    L = D (I + U (S - I) Uᵀ), so that L Lᵀ = D (I + U (S² - I) Uᵀ) D.

    - **scale** - the diagonal of D, ``(d,)``.
    - **directions** - Uᵀ, orthonormal rows ``(k, d)``: what is summed over lies side by side, which
      for one chain is worth a factor of five.
    - **stretch** - the diagonal of S, ``(k,)``; 1 in a direction that is not used.
    """

    scale: Array
    directions: Array
    stretch: Array

    def placer(self, z: Array, remember: bool = True) -> RememberingPlacer | RecomputingPlacer:
        """Return how a step at ``z`` places its proposal; see :func:`place_by_product`."""
        return place_by_product(self, z, remember)

    @exact_products
    def unwhiten(self, v: Array) -> Array:
        """Return L v."""
        return self.scale * self.lengthen(v, self.stretch)

    @exact_products
    def whiten_gradient(self, gradient: Array) -> Array:
        """Return Lᵀ g."""
        return self.lengthen(self.scale * gradient, self.stretch)

    def whiten(self, z: Array) -> Array:
        """Return L⁻¹ z for rows z, ``(…, d)``."""
        return self.lengthen(z / self.scale, 1 / self.stretch)

    @exact_products
    def lengthen(self, rows: Array, stretch: Array) -> Array:
        """Return (I + U (S - I) Uᵀ) y for rows y, ``(…, d)``."""
        return rows + ((rows @ self.directions.T) * (stretch - 1)) @ self.directions

    @exact_products
    def covariance(self) -> LowRankInverseMassMatrix:
        """Return L Lᵀ as BlackJAX writes it: by σ, U and λ. In full it may not fit into memory."""
        vectors = jnp.swapaxes(self.directions, -2, -1)
        return LowRankInverseMassMatrix(self.scale, vectors, self.stretch**2)


def place_by_product(
    whitening: DenseWhitening | LowRankWhitening, z: Array, remember: bool
) -> RememberingPlacer | RecomputingPlacer:
    """Return the placer of a metric whose products are worth saving.

    :param remember: whether the log density is evaluated at the proposal, once, and nowhere else.
    """
    if remember and z.size > _SMALL:
        return RememberingPlacer(z, whitening, jax.new_ref(z))
    return RecomputingPlacer(z, whitening)


@dataclass(frozen=True)
class RememberingPlacer:
    """Placement that remembers the proposal.

    BlackJAX returns v alone. The ref carries z + L v out of the function that it differentiates,
    which saves a third product a step.
    """

    z: Array
    whitening: DenseWhitening | LowRankWhitening
    proposal: Any

    def __call__(self, v: Array) -> Array:
        """Return z + L v."""
        proposal = self.z + self.whitening.unwhiten(v)
        self.proposal[...] = jax.lax.stop_gradient(proposal)
        return proposal

    def settle(self, v: Array, moved: Array) -> Array:
        """Return the position after the step: the proposal where it was taken."""
        return jnp.where(moved, self.proposal[...], self.z)


@dataclass(frozen=True)
class RecomputingPlacer:
    """Placement of a trajectory, which ends at any of the points that it visits."""

    z: Array
    whitening: DenseWhitening | LowRankWhitening

    def __call__(self, v: Array) -> Array:
        """Return z + L v."""
        return self.z + self.whitening.unwhiten(v)

    def settle(self, v: Array, moved: Array) -> Array:
        """Return the position after the step: ``z`` itself, to the bit, where v is 0."""
        return self(v)


Whitening = DiagonalWhitening | DenseWhitening | LowRankWhitening
