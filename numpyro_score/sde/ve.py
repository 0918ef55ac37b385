"""The diffusion whose variance explodes."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

import jax.numpy as jnp

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array
from numpyro_score.sde.base import SDE


@dataclass(frozen=True)
class VE(SDE):
    r"""Variance exploding: :math:`\sigma(t) = \sigma_{min} (\sigma_{max}/\sigma_{min})^t`, α = 1.

    The continuous limit of a geometric ladder of noise levels. ``max_std`` should be about the
    largest distance between two examples, ``min_std`` about a quarter of the finest structure that
    matters: with a fiftieth, learned scores are mostly error there, which moves of kernels follow.

    Source: Y. Song et al. (2021), equation 9 and appendix C.

    :param min_std: σ at t = 0, in units of the data.
    :param max_std: σ at t = 1.
    :raises ValueError: unless 0 < ``min_std`` < ``max_std``.

    >>> from numpyro_score.sde import VE
    >>> VE(min_std=0.1, max_std=10.0).marginal_std(0.5).item()
    1.0
    """

    min_std: float = 0.01
    max_std: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self.min_std, "min_std")
        check_positive(self.max_std, "max_std")
        if not self.min_std < self.max_std:
            raise ValueError(
                f"min_std must be below max_std, got {self.min_std!r} and {self.max_std!r}."
            )

    def mean_scale(self, t: Array) -> Array:
        """Return 1, of the shape of ``t``."""
        return jnp.ones_like(jnp.asarray(t, float))

    def marginal_std(self, t: Array) -> Array:
        """Return σ(t)."""
        return self.min_std * jnp.exp(self._growth * jnp.asarray(t, float))

    def drift_rate(self, t: Array) -> Array:
        """Return 0, of the shape of ``t``."""
        return jnp.zeros_like(jnp.asarray(t, float))

    def diffusion(self, t: Array) -> Array:
        """Return g(t) = σ(t) √(2 log(σ_max / σ_min))."""
        return self.marginal_std(t) * sqrt(2 * self._growth)

    @property
    def _growth(self) -> float:
        return log(self.max_std / self.min_std)
