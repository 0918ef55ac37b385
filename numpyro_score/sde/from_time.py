"""A diffusion that begins later."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array, Shape
from numpyro_score.sde.base import SDE, check_sde


@dataclass(frozen=True)
class From(SDE):
    r"""A diffusion from a later time on: what is noised at that time becomes what is learned.

    :param sde: the diffusion.
    :param t_min: where it begins now.
    :raises TypeError: ``sde`` is none.
    :raises ValueError: a time that is not at or after its ``t_min`` and before its ``t_max``.

    >>> from numpyro_score.sde import VE, From
    >>> From(VE(0.1, 10.0), 0.5).prior((2,)).event_shape
    (2,)
    """

    sde: SDE
    t_min: float

    def __post_init__(self) -> None:
        check_sde(self.sde)
        if not self.sde.t_min <= self.t_min < self.sde.t_max:
            raise ValueError(
                f"the time must be at least t_min = {self.sde.t_min} and below t_max = "
                f"{self.sde.t_max} of the diffusion, got {self.t_min!r}."
            )

    @property
    def t_max(self) -> float:  # type: ignore[override]
        """Where time ends: that of the diffusion."""
        return self.sde.t_max

    def mean_scale(self, t: Array) -> Array:
        """Return α(t)."""
        return self.sde.mean_scale(t)

    def marginal_std(self, t: Array) -> Array:
        """Return σ(t)."""
        return self.sde.marginal_std(t)

    def drift_rate(self, t: Array) -> Array:
        """Return c(t)."""
        return self.sde.drift_rate(t)

    def diffusion(self, t: Array) -> Array:
        """Return g(t)."""
        return self.sde.diffusion(t)

    def training_times(self, rng_key: Array, shape: Shape) -> Array:
        """Draw times as the diffusion does, and uniform ones for those before ``t_min``."""
        own_key, uniform_key = jax.random.split(rng_key)
        t = self.sde.training_times(own_key, shape)
        return jnp.where(t < self.t_min, super().training_times(uniform_key, shape), t)
