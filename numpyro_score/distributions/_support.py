"""Supports of whole events, and coordinates in which an event is roughly standard normal."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    ComposeTransform,
    LowerCholeskyAffine,
    ReshapeTransform,
    Transform,
    biject_to,
)

from numpyro_score._precision import exact_products
from numpyro_score._typing import Array, PyTree, Shape
from numpyro_score.networks import DensityNetwork, GaussianBase


def event_support(support: constraints.Constraint | None, event_dim: int) -> constraints.Constraint:
    """Lift a constraint on numbers or vectors to events, so that each has one Jacobian."""
    support = constraints.real if support is None else support
    if not isinstance(support, constraints.Constraint):
        raise TypeError(
            "support must be a constraint of numpyro.distributions.constraints, "
            f"got {type(support).__name__}."
        )
    if support.is_discrete:
        raise ValueError(f"support must be continuous to have a score, got {support}.")
    if support.event_dim > event_dim:
        raise ValueError(
            f"support {support} speaks of {support.event_dim} axes at once, but event_shape has "
            f"{event_dim}."
        )
    try:
        biject_to(support)
    except NotImplementedError:
        raise ValueError(
            f"support {support} has no bijection from the real numbers (numpyro's biject_to), "
            "which MCMC needs; use one that has, such as constraints.positive, interval, simplex."
        ) from None
    extra = event_dim - support.event_dim
    return constraints.independent(support, extra) if extra else support


def is_real(support: constraints.Constraint) -> bool:
    """Whether an event may be any array of real numbers."""
    base = getattr(support, "base_constraint", support)
    return isinstance(base, type(constraints.real))


class ExactAffine(LowerCholeskyAffine):
    """The bijection v ↦ loc + scale_tril v, with all digits of float32 on a GPU, too.

    Its Jacobian takes no product.
    """

    @exact_products
    def __call__(self, x: Array) -> Array:
        """Return x for v of shape ``(..., d)``."""
        return super().__call__(x)

    @exact_products
    def _inverse(self, y: Array) -> Array:
        return super()._inverse(y)


def standard_coordinates(
    network: PyTree, support: constraints.Constraint, event_shape: Shape
) -> Transform:
    """The bijection v ↦ x under which a standard normal v is a fair first guess of x.

    It is the Gaussian base of the network where it has one and x is unconstrained, else the
    bijection of the support.
    """
    base = getattr(network, "base", None)
    size = math.prod(event_shape)
    if not (isinstance(base, GaussianBase) and is_real(support) and base.mean.size == size):
        return biject_to(support)
    identity = jnp.eye(size, dtype=base.mean.dtype)
    scale_tril = jax.scipy.linalg.solve_triangular(base.whitening, identity, lower=True)
    coordinates = ExactAffine(base.mean, scale_tril)
    if base.mean.shape == event_shape:
        return coordinates
    # The base of a network for images is one of their pixels in a row.
    return ComposeTransform([coordinates, ReshapeTransform(event_shape, (size,))])


def reference_density(network: PyTree, support: constraints.Constraint) -> DensityNetwork | None:
    """Return the density that ``network`` tilts, where there is one and x is unconstrained.

    Its draws are a better first guess of x than those of :func:`standard_coordinates`.
    """
    reference = getattr(network, "reference", None)
    return reference if isinstance(reference, DensityNetwork) and is_real(support) else None
