"""How far a score is from being the gradient of anything."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.distributions import ScoreDistribution
from numpyro_score.distributions._curl import MAX_CURL, jacobian_parts

__all__ = ["MAX_CURL", "relative_curl"]

_NUM_POINTS = 16
_NUM_PROBES = 32


def relative_curl(part: ScoreDistribution) -> Array:
    """Return ‖J - Jᵀ‖ / ‖J + Jᵀ‖ for the Jacobian J of a score, 0 for a gradient.

    Root mean squares over 16 points around the anchor, which are standard normal in the
    coordinates of the network's Gaussian base, or of the support. The norms are exact in up to 32
    dimensions; above, estimated by 32 random probes.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.distributions import ScoreDistribution
    >>> field = jnp.array([[-1.0, 0.5], [-0.5, -1.0]])
    >>> relative_curl(ScoreDistribution(lambda x: field @ x, (2,))).round(4).item()
    0.5
    """
    points, probes = _points(part), _probes(part)
    odd, even = jacobian_parts(part.score, points, probes, part.event_dim)
    return jnp.sqrt(odd.sum() / even.sum())


def _points(part: ScoreDistribution) -> Array:
    transform = part._standard_coordinates()
    centre = transform.inv(part.anchor)
    noise = jax.random.normal(jax.random.key(0), (_NUM_POINTS, *part.batch_shape, *centre.shape))
    return transform(centre + noise)


def _probes(part: ScoreDistribution) -> Array:
    size = 1
    for n in part.event_shape:
        size *= n
    if size <= _NUM_PROBES:
        probes = jnp.eye(size)
    else:
        probes = jax.random.normal(jax.random.key(1), (_NUM_PROBES, size))
    return probes.reshape(-1, *part.event_shape)
