"""The diffusion whose time is its noise."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array, Shape
from numpyro_score.sde.base import SDE


@dataclass(frozen=True)
class EDM(SDE):
    r"""The diffusion of Karras et al.: :math:`\sigma(t) = t`, α = 1.

    The marginals are those of :class:`VE` with the same ends, only at other times, and any network
    of noise levels serves both. What differs is where a network is trained: at noise of

    .. math:: \log (\sigma / \sigma_{data}) \sim N(P, S^2)

    between the ends, with most of it where there is something to learn: with less noise the score
    is that of one example, with more that of all of them together. Draws of few steps want
    ``time_grid(sde, num_steps, spacing="karras")``.

    *Use it* for images, and wherever ends are given generously. *Do not* where the last noise must
    be learned as well as the others: :class:`VE` has as much of all.

    Source: T. Karras et al., Elucidating the design space of diffusion-based generative models,
    NeurIPS (2022), table 1, whose :math:`P` is -1.2 for :math:`\sigma` itself and
    :math:`\sigma_{data} = 0.5`, so that in units of the data it is -0.5.

    :param min_std: σ where time begins, in units of the data; see :class:`VE` where kernels are to
        move by the score.
    :param max_std: σ where it ends.
    :param data_scale: σ_data, the standard deviation of the data.
    :param log_mean: P.
    :param log_std: S.
    :raises ValueError: unless 0 < ``min_std`` < ``max_std``; another number that is not above 0.

    >>> import jax
    >>> from numpyro_score.sde import EDM
    >>> sde = EDM(min_std=0.002, max_std=80.0, data_scale=0.5)
    >>> sde.marginal_std(3.0).item()
    3.0
    >>> t = sde.training_times(jax.random.key(0), (10_000,))
    >>> bool(abs(jax.numpy.log(t).mean() + 1.2) < 0.05)
    True
    """

    min_std: float = 0.002
    max_std: float = 80.0
    data_scale: float = 1.0
    log_mean: float = -0.5
    log_std: float = 1.2

    def __post_init__(self) -> None:
        for name in ("min_std", "max_std", "data_scale", "log_std"):
            check_positive(getattr(self, name), name)
        if not self.min_std < self.max_std:
            raise ValueError(
                f"min_std must be below max_std, got {self.min_std!r} and {self.max_std!r}."
            )

    @property
    def t_min(self) -> float:  # type: ignore[override]
        """Where time begins: ``min_std``."""
        return self.min_std

    @property
    def t_max(self) -> float:  # type: ignore[override]
        """Where time ends: ``max_std``."""
        return self.max_std

    def mean_scale(self, t: Array) -> Array:
        """Return 1, of the shape of ``t``."""
        return jnp.ones_like(jnp.asarray(t, float))

    def marginal_std(self, t: Array) -> Array:
        """Return σ(t) = t."""
        return jnp.asarray(t, float)

    def drift_rate(self, t: Array) -> Array:
        """Return 0, of the shape of ``t``."""
        return jnp.zeros_like(jnp.asarray(t, float))

    def diffusion(self, t: Array) -> Array:
        """Return g(t) = √(2t)."""
        return jnp.sqrt(2 * jnp.asarray(t, float))

    def training_times(self, rng_key: Array, shape: Shape) -> Array:
        """Draw times of the log-normal above, between the ends."""
        ends = jnp.log(jnp.array([self.min_std, self.max_std]) / self.data_scale)
        low, high = ndtr((ends - self.log_mean) / self.log_std)
        quantile = ndtri(jax.random.uniform(rng_key, shape, minval=low, maxval=high))
        t = self.data_scale * jnp.exp(self.log_mean + self.log_std * quantile)
        return jnp.clip(t, self.min_std, self.max_std)
