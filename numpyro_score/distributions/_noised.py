"""A diffusion at one noise level, and the ratio of its densities at two.

What score matching learns of modes that lie apart, it learns where noise has joined them: the
energy, or the line integral, of a learned network at little noise has weights of modes that nobody
taught. Two levels are compared at one place instead, by an integral over the noise between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.distributions.energy import EnergyDistribution
from numpyro_score.distributions.score import ScoreDistribution
from numpyro_score.networks import score_fn
from numpyro_score.samplers._noise_levels import AtTime, BetweenNoise
from numpyro_score.sde import time_of

if TYPE_CHECKING:
    from numpyro_score.distributions.diffusion import DiffusionDistribution


def between_noise(
    distribution: DiffusionDistribution, lower: Array, upper: Array, num_nodes: int
) -> EnergyDistribution:
    """Return what has the log ratio of the densities at two noise levels for its log density."""
    score = score_fn(distribution.network, distribution.event_shape)
    exact = distribution.divergence == "exact"
    return EnergyDistribution(
        BetweenNoise(score, lower, upper, distribution.sde, num_nodes, exact),
        distribution.event_shape,
        condition=distribution.condition,
        condition_event_dim=distribution.condition_event_dim,
    )


def at_noise(
    distribution: DiffusionDistribution, noise_scale: Array | float, num_nodes: int
) -> EnergyDistribution | ScoreDistribution:
    """Return the distribution of the data with more noise, without its normalizer.

    No ODE is solved: an energy is a density as it is, a score one by its line integral.

    :param noise_scale: standard deviation of the noise in units of the data; below that of
        ``sde.t_min`` nothing is added to it.
    :param num_nodes: of the line integral of a score.
    """
    sde = distribution.sde
    network = AtTime(distribution.network, time_of(sde, noise_scale), sde)
    kind = EnergyDistribution if is_energy(distribution) else ScoreDistribution
    options: dict[str, Any] = {"num_nodes": num_nodes} if kind is ScoreDistribution else {}
    return kind(
        network,
        distribution.event_shape,
        condition=distribution.condition,
        condition_event_dim=distribution.condition_event_dim,
        **options,
    )


def is_energy(distribution: DiffusionDistribution) -> bool:
    """Whether the network of a diffusion is an energy and not a score."""
    args = [jnp.zeros(distribution.event_shape), jnp.asarray(distribution.sde.t_max, float)]
    if distribution.condition is not None:
        args.append(distribution.condition.reshape(-1, *distribution._condition_event())[0])
    return jnp.shape(jax.eval_shape(lambda *a: distribution.network(*a), *args)) == ()
