"""A diffusion at one noise level, and the ratio of its densities at two.

What score matching learns of modes that lie apart, it learns where noise has joined them: the
energy, or the line integral, of a learned network at little noise has weights of modes that nobody
taught. Two levels are compared at one place instead, by an integral over the noise between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array
from numpyro_score.distributions.energy import EnergyDistribution
from numpyro_score.distributions.score import ScoreDistribution
from numpyro_score.networks import score_fn
from numpyro_score.sde import SDE, time_of

if TYPE_CHECKING:
    from numpyro_score.distributions.diffusion import DiffusionDistribution


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


class BetweenNoise(eqx.Module):
    r"""Minus the log ratio of the densities with less and with more noise, at one place.

    A density with noise :math:`\nu` solves the heat equation, so that

    .. math:: \log p_{\nu_0}(x) - \log p_{\nu_1}(x) = -\int_{\nu_0}^{\nu_1}
              \nu \left(\nabla \cdot s_\nu + \|s_\nu\|^2\right) d\nu

    by Gauss and Legendre's rule in :math:`\log \nu`.

    Source: the Fokker-Planck equation of a diffusion without drift; C.-H. Lai et al., FP-Diffusion,
    ICML (2023), equation 5.
    """

    score: Callable[..., Array]
    lower: Array
    upper: Array
    sde: SDE = eqx.field(static=True)
    num_nodes: int = eqx.field(static=True)
    exact: bool = eqx.field(static=True)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return a number, to stand as an energy."""
        first, last = (jnp.asarray(t, x.dtype) for t in (self.sde.t_min, self.sde.t_max))
        ends = (self.sde.noise_scale(first), self.sde.noise_scale(last))
        low, high = (jnp.log(jnp.clip(level, *ends)) for level in (self.lower, self.upper))
        nodes, weights = np.polynomial.legendre.leggauss(self.num_nodes)
        log_noise = low + (high - low) * 0.5 * (1 + jnp.asarray(nodes, x.dtype))
        rates = jax.vmap(lambda u: self._rate(x, u, condition))(log_noise)
        return 0.5 * (high - low) * jnp.sum(jnp.asarray(weights, x.dtype) * rates)

    def _rate(self, x: Array, log_noise: Array, condition: Array | None) -> Array:
        at = AtTime(self.score, time_of(self.sde, jnp.exp(log_noise)), self.sde)
        flat = lambda y: at(y.reshape(x.shape), condition).ravel()  # noqa: E731
        score, push = jax.linearize(flat, x.ravel())
        if self.exact:
            divergence = jnp.trace(jax.vmap(push)(jnp.eye(x.size, dtype=x.dtype)))
        else:
            probe = jax.random.rademacher(jax.random.key(0), (x.size,), x.dtype)
            divergence = jnp.sum(probe * push(probe))
        # Noise of x in units of the variable that a distribution at t_min is of.
        noise = jnp.exp(log_noise) * self.sde.mean_scale(jnp.asarray(self.sde.t_min, x.dtype))
        return noise**2 * (divergence + jnp.sum(score**2))


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
