"""What every diffusion tells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_score._typing import Array, Shape


class SDE(ABC):
    r"""A linear diffusion :math:`dx = c(t)\, x\, dt + g(t)\, dw` from data to noise.

    Given :math:`x_0`, the variable at time t is :math:`\alpha(t) x_0 + \sigma(t) \varepsilon` with
    :math:`\varepsilon \sim N(0, I)`, where

    .. math:: \alpha' = c \alpha, \qquad (\sigma^2)' = 2 c \sigma^2 + g^2

    A subclass gives these four functions; time runs from ``t_min`` to ``t_max``, and
    :math:`\alpha(t_{min})` is near 1.

    Source: Y. Song et al., Score-based generative modeling through stochastic differential
    equations, ICLR (2021), section 3 and appendix B.
    """

    t_min: float
    t_max: float

    @abstractmethod
    def mean_scale(self, t: Array) -> Array:
        """Return α(t), of the shape of ``t``."""

    @abstractmethod
    def marginal_std(self, t: Array) -> Array:
        """Return σ(t), of the shape of ``t``."""

    @abstractmethod
    def drift_rate(self, t: Array) -> Array:
        """Return c(t), of the shape of ``t``."""

    @abstractmethod
    def diffusion(self, t: Array) -> Array:
        """Return g(t), of the shape of ``t``."""

    def noise_scale(self, t: Array) -> Array:
        """Return σ(t) / α(t), the noise in units of the data: that of x_t / α(t)."""
        t = jnp.asarray(t, float)
        return self.marginal_std(t) / self.mean_scale(t)

    def drift(self, x: Array, t: Array) -> Array:
        """Return c(t) x, for a number ``t``."""
        return self.drift_rate(t) * x

    def training_times(self, rng_key: Array, shape: Shape) -> Array:
        """Draw the times at which a network is trained: uniform, unless a subclass knows better."""
        return jax.random.uniform(rng_key, shape, minval=self.t_min, maxval=self.t_max)

    def prior(self, event_shape: Shape) -> dist.Distribution:
        """Return what is left of any data at ``t_max``: a normal without a trace of them."""
        scale = self.marginal_std(jnp.asarray(self.t_max, float))
        return dist.Normal(jnp.zeros(event_shape), scale).to_event(len(event_shape))


def check_sde(sde: Any) -> None:
    """Refuse anything but a diffusion."""
    if not isinstance(sde, SDE):
        raise TypeError(f"sde must be a diffusion of numpyro_score.sde such as VP(), got {sde!r}.")
