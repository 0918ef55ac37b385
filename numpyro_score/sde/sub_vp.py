"""The diffusion whose variance stays below that of VP."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.sde.vp import VP


@dataclass(frozen=True)
class SubVP(VP):
    r"""Sub-VP: the drift of :class:`VP` with less noise, :math:`\sigma(t) = 1 - \alpha(t)^2`.

    Source: Y. Song et al. (2021), equation 12 and appendix C: likelihoods come out better.

    The parameters are those of :class:`VP`.

    >>> from numpyro_score.sde import VP, SubVP
    >>> bool(SubVP().marginal_std(0.1) < VP().marginal_std(0.1))
    True
    """

    def marginal_std(self, t: Array) -> Array:
        """Return σ(t) = 1 - α²."""
        return -jnp.expm1(2 * self.log_mean_scale(t))

    def diffusion(self, t: Array) -> Array:
        """Return √(β (1 - α⁴))."""
        return jnp.sqrt(-self.rate(t) * jnp.expm1(4 * self.log_mean_scale(t)))
