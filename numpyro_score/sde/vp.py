"""Diffusions that preserve a variance of 1."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import jax.numpy as jnp

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array
from numpyro_score.sde.base import SDE


class _VariancePreserving(SDE):
    """α² + σ² = 1, from ``log_mean_scale`` and its derivative -β / 2."""

    @abstractmethod
    def rate(self, t: Array) -> Array:
        """Return β(t)."""

    @abstractmethod
    def log_mean_scale(self, t: Array) -> Array:
        """Return log α(t), which is -½ ∫ β."""

    def mean_scale(self, t: Array) -> Array:
        """Return α(t)."""
        return jnp.exp(self.log_mean_scale(t))

    def marginal_std(self, t: Array) -> Array:
        """Return σ(t) = √(1 - α²)."""
        return jnp.sqrt(-jnp.expm1(2 * self.log_mean_scale(t)))

    def drift_rate(self, t: Array) -> Array:
        """Return -β(t) / 2."""
        return -0.5 * self.rate(t)

    def diffusion(self, t: Array) -> Array:
        """Return √β(t)."""
        return jnp.sqrt(self.rate(t))


@dataclass(frozen=True)
class VP(_VariancePreserving):
    r"""Variance preserving with a linear rate :math:`\beta(t) = \beta_0 + t (\beta_1 - \beta_0)`.

    For data of mean 0 and variance about 1. The continuous limit of denoising diffusion
    probabilistic models.

    Source: J. Ho et al., Denoising diffusion probabilistic models, NeurIPS (2020); Y. Song et al.
    (2021), equations 11 and 33.

    :param min_rate: β at t = 0.
    :param max_rate: β at t = 1.
    :param t_min: where time begins; σ is 0 at t = 0, and the score infinite.

    >>> from numpyro_score.sde import VP
    >>> sde = VP()
    >>> bool(abs(sde.mean_scale(0.5) ** 2 + sde.marginal_std(0.5) ** 2 - 1) < 1e-6)
    True
    """

    min_rate: float = 0.1
    max_rate: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self.min_rate, "min_rate")
        check_positive(self.max_rate, "max_rate")
        check_positive(self.t_min, "t_min")

    def rate(self, t: Array) -> Array:
        """Return β(t)."""
        return self.min_rate + jnp.asarray(t, float) * (self.max_rate - self.min_rate)

    def log_mean_scale(self, t: Array) -> Array:
        """Return log α(t)."""
        t = jnp.asarray(t, float)
        return -0.25 * t**2 * (self.max_rate - self.min_rate) - 0.5 * t * self.min_rate


@dataclass(frozen=True)
class CosineVP(_VariancePreserving):
    r"""Variance preserving, with a mean that falls as a cosine.

    .. math:: \alpha(t) = \cos \Big( \frac{t + s}{1 + s} \frac\pi2 \Big)
              \Big/ \cos \Big( \frac{s}{1 + s} \frac\pi2 \Big)

    Noise comes more slowly than in :class:`VP`, at both ends.

    Source: A. Nichol & P. Dhariwal, Improved denoising diffusion probabilistic models, ICML
    (2021), equation 17.

    :param offset: s, so that noise does not begin too small.
    :param t_max: where time ends, below 1: there β is infinite.

    >>> from numpyro_score.sde import CosineVP
    >>> CosineVP().mean_scale(0.0).item()
    1.0
    """

    offset: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.995

    def __post_init__(self) -> None:
        check_positive(self.offset, "offset")
        check_positive(self.t_min, "t_min")
        if not self.t_max < 1:
            raise ValueError(f"t_max must be below 1, where β is infinite; got {self.t_max!r}.")

    def _angle(self, t: Array | float) -> Array:
        return (jnp.asarray(t, float) + self.offset) / (1 + self.offset) * (jnp.pi / 2)

    def rate(self, t: Array) -> Array:
        """Return β(t)."""
        return jnp.pi / (1 + self.offset) * jnp.tan(self._angle(t))

    def log_mean_scale(self, t: Array) -> Array:
        """Return log α(t)."""
        return jnp.log(jnp.cos(self._angle(t))) - jnp.log(jnp.cos(self._angle(0.0)))
