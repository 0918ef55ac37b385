"""A diffusion at one noise level, as a distribution that a kernel can move in at little cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.distributions.diffusion import DiffusionDistribution
from numpyro_score.distributions.energy import EnergyDistribution
from numpyro_score.distributions.score import ScoreDistribution
from numpyro_score.sde import SDE, time_of


class AtTime(eqx.Module):
    r"""The network of a diffusion at one time, of the variable in units of the data.

    With :math:`c = \alpha(t) / \alpha(t_{min})` that variable is :math:`x_t / c`, of score
    :math:`c\, s(c x, t)`: noise does not shrink it, and at ``t_min`` it is what the
    distribution is of.
    """

    network: Callable[..., Array]
    t: Array
    sde: SDE = eqx.field(static=True)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return the energy, shape ``()``, or the score, of the shape of ``x``."""
        scale = self.sde.mean_scale(self.t) / self.sde.mean_scale(jnp.asarray(self.sde.t_min))
        rest = () if condition is None else (condition,)
        out = self.network(scale * x, self.t, *rest)
        return out if jnp.shape(out) == () else scale * out


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
