"""The network of a diffusion at one noise level, and what lies between two of them."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array
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
