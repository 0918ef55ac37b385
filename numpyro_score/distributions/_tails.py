"""Whether a density falls fast enough far out to be normalized.

In the unconstrained coordinates v of the support, of dimension d, it can be where its logarithm
falls faster than -d log |v|: along each ray, v · ∇ log p < -d. Rays are tried in random directions,
and in those to which the score itself leads outwards: u ← u + s(r u) / (r L) is the power iteration
for the slowest direction of normal tails.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.transforms import biject_to

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array
from numpyro_score.distributions._support import is_real

if TYPE_CHECKING:
    from numpyro_score.distributions._composed import ComposedDistribution

# Where a bijection is an exponential, 10 is far out, and more is beyond floating-point numbers.
_RADII, _NEAR_RADII = np.geomspace(1.0, 1e6, 13), np.geomspace(1.0, 10.0, 3)
_NUM_RANDOM, _NUM_AXES = 16, 64
_NUM_STEPS = 100


def check_tails(distribution: ComposedDistribution) -> None:
    """Refuse a density that does not fall far out.

    :raises ValueError: with the reason; also where its numbers are traced.
    """
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves(distribution)):
        raise ValueError(
            "negative weights, or weights of a sum below 1, may leave a density that cannot be "
            "normalized, and where its numbers are traced, as under jit, its tails cannot be "
            "looked at. Make the product outside, or vouch for its tails with check_tails=False."
        )
    with jax.ensure_compile_time_eval():
        slopes = np.asarray(_slopes(distribution))
    size = math.prod(biject_to(distribution.support).inverse_shape(distribution.event_shape))
    if np.isnan(slopes).any():
        raise ValueError(
            "the score of the product is NaN along some direction far from the data, so that its "
            "tails cannot be looked at. Mend the factors, or vouch with check_tails=False."
        )
    if not slopes.max() < -size:
        raise ValueError(
            "the product does not fall fast enough far out to be normalized: v · ∇ log p is "
            f"{slopes.max():.3g} along one direction, where it must be below -{size}, the number "
            "of dimensions. What is divided by must have lighter tails than what it divides, and a "
            "power below 1 of heavy tails may be none; make the negative weights smaller or the "
            "temperature lower. Vouch for the tails yourself with check_tails=False."
        )


@jax.jit
def _slopes(distribution: ComposedDistribution) -> Array:
    """Return v · ∇ log p as far out as it is finite, by direction and member of the batch."""
    transform = biject_to(distribution.support)
    shape = transform.inverse_shape(distribution.event_shape)
    size, batch_shape = math.prod(shape), distribution.batch_shape
    radii = jnp.asarray(_RADII if is_real(distribution.support) else _NEAR_RADII, float)

    def worst(index: Array) -> Array:
        def log_density(flat: Array) -> Array:
            v = flat.reshape(shape)
            x = transform(v)
            log_det = transform.log_abs_det_jacobian(v, x).sum()
            return distribution._log_prob_of(x, index, batch_shape) + log_det

        score = jax.vmap(jax.grad(log_density))

        def slope(radius: Array, rays: Array) -> Array:
            return jnp.sum(radius * rays * score(radius * rays), 1)

        rays = _first_rays(size)
        finite = jnp.isfinite(jax.lax.map(lambda r: slope(r, rays), radii)).all(1)
        radius = jnp.max(jnp.where(finite, radii, radii[0]))
        stiffness = jnp.max(jnp.linalg.norm(score(radius * rays), axis=1)) / radius

        def turn(_: int, rays: Array) -> Array:
            rays = rays + score(radius * rays) / (radius * stiffness)
            return rays / jnp.linalg.norm(rays, axis=1, keepdims=True)

        slow = jax.lax.fori_loop(0, _NUM_STEPS, turn, rays)
        # A ray that vanished was as stiff as they come.
        slow = jnp.where(jnp.isfinite(slow), slow, rays)
        return jnp.concatenate([slope(radius, rays), slope(radius, slow)])

    return jax.vmap(worst)(jnp.arange(math.prod(batch_shape)))


def _first_rays(size: int) -> Array:
    axes = jnp.eye(min(size, _NUM_AXES), size)
    random = jax.random.normal(jax.random.key(0), (_NUM_RANDOM, size))
    random = random / jnp.linalg.norm(random, axis=1, keepdims=True)
    return jnp.concatenate([axes, -axes, random])
