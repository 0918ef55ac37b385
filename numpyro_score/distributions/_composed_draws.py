"""Draws of a product in which there are diffusions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array, Shape
from numpyro_score.distributions._composed import log_prob_of
from numpyro_score.distributions.diffusion import DiffusionDistribution
from numpyro_score.samplers import AnnealedParticles, composed_diffusion
from numpyro_score.samplers._effective import tell_few

if TYPE_CHECKING:
    from numpyro_score.distributions.product import Product


class _Given(eqx.Module):
    """A network of which the condition is known."""

    network: Callable[..., Array]
    condition: Array | None

    def __call__(self, x: Array, t: Array) -> Array:
        rest = () if self.condition is None else (self.condition,)
        return self.network(x, t, *rest)


def draw_composed(
    product: Product, key: Array, sample_shape: Shape, sampler: AnnealedParticles
) -> Array:
    """Return draws by :func:`composed_diffusion`, one population for each member of the batch.

    :raises NotImplementedError: the product has no diffusion, or those of two SDEs.
    :raises FloatingPointError: draws are not finite; not under ``jit``.
    """
    sdes = {factor.sde for factor in product.factors if isinstance(factor, DiffusionDistribution)}
    if len(sdes) != 1:
        why = "has diffusions of different SDEs" if sdes else "has a density but no exact sampler"
        raise NotImplementedError(
            f"This Product {why}. Draw from it with MCMC (numpyro_score.infer.MALA, or "
            "ReplicaExchange for diffusions), or accept a short Langevin run at every call of "
            "`sample` with sampler=numpyro_score.samplers.Langevin()."
        )
    size = max(sampler.num_particles, prod(sample_shape))
    draws, ess = _draw(product, key, sample_shape, sampler)
    if is_concrete(draws):
        lost = ~np.isfinite(draws).reshape(-1, prod(product.event_shape)).all(1)
        if lost.any():
            raise FloatingPointError(
                f"{lost.mean():.1%} of the draws are not finite: on the way a score is NaN or "
                "too large, or a factor that is no diffusion is NaN, or -inf at all particles. "
                "numpyro_score.samplers.composed_diffusion tells at which noise level."
            )
        tell_few(np.asarray(ess), size)
    return draws


@partial(jax.jit, static_argnums=(2, 3))
def _draw(
    product: Product, key: Array, sample_shape: Shape, sampler: AnnealedParticles
) -> tuple[Array, Array]:
    batch_shape, event_shape = product.batch_shape, product.event_shape
    num = prod(sample_shape)
    pairs = list(zip(product.weights, product.factors, strict=True))
    diffusions = [(w, d) for w, d in pairs if isinstance(d, DiffusionDistribution)]
    others = [(w, d) for w, d in pairs if not isinstance(d, DiffusionDistribution)]

    def draw(key: Array, index: Array) -> tuple[Array, Array]:
        def given(d: DiffusionDistribution) -> _Given:
            if d.condition is None:
                return _Given(d.network, None)
            event = d._condition_event()
            conditions = jnp.broadcast_to(d.condition, batch_shape + event)
            return _Given(d.network, conditions.reshape(-1, *event)[index])

        def log_factor(x: Array) -> Array:
            return sum(w * log_prob_of(d, x, index, batch_shape) for w, d in others)

        draws = composed_diffusion(
            key,
            [given(d) for _, d in diffusions],
            diffusions[0][1].sde,
            event_shape,
            max(num, sampler.num_particles),
            weights=jnp.stack([w for w, _ in diffusions]),
            log_factor=log_factor if others else None,
            data_scales=[d.data_scale for _, d in diffusions],
            num_levels=sampler.num_levels,
            num_moves=sampler.num_moves,
            divergence=diffusions[0][1].divergence,
        )
        return draws.positions[:num], draws.ess

    index = jnp.arange(prod(batch_shape))
    draws, ess = jax.vmap(draw)(jax.random.split(key, len(index)), index)
    draws = jnp.moveaxis(draws, 0, 1)
    return draws.reshape(sample_shape + batch_shape + event_shape), ess
