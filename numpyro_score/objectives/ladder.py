"""Denoising score matching over many noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array
from numpyro_score.objectives._base import batched_score, map_rows, sum_event


@dataclass(frozen=True)
class LadderScoreMatching:
    r"""Denoising score matching over a ladder of noise levels, for one network of all of them.

    One loss per example :math:`x`, at a level :math:`\sigma` drawn at random from the ladder, with
    :math:`\varepsilon \sim N(0, I)`:

    .. math:: \tfrac12 \lambda(\sigma) \| s_\theta(x + \sigma\varepsilon, \sigma)
              + \varepsilon / \sigma \|^2, \qquad \lambda(\sigma) = \sigma^2

    The weight makes all levels count about alike.

    Use it for data with modes that lie apart, or in a subspace: the score between modes, where
    one small noise leaves no examples, is learned at the larger levels. Not where one density is
    all that is wanted: a network without a level is easier to learn with one of them.

    Source: Y. Song & S. Ermon, Generative modeling by estimating gradients of the data
    distribution, NeurIPS (2019), equations 5 and 6.

    :param noise_scales: standard deviations :math:`\sigma`, in units of the data.
    :raises ValueError: an empty ladder, or a level that is not a finite number above 0.

    Called with ``(network, batch, key, condition=None)``: an energy or a score (anything that
    :func:`~numpyro_score.networks.as_network` accepts) ``network(x, noise_scale)`` or
    ``network(x, noise_scale, condition)``, where ``noise_scale`` has the shape ``()``; a batch of
    shape ``(n, *event_shape)``, a random key, and a condition of shape ``(n, ...)``. It returns
    shape ``(n,)``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.objectives import LadderScoreMatching
    >>> objective = LadderScoreMatching(noise_scales=(0.1, 1.0))
    >>> score_at_zero = lambda x, noise_scale: -x / noise_scale**2
    >>> objective(score_at_zero, jnp.zeros((3, 2)), jax.random.key(0)).tolist()
    [0.0, 0.0, 0.0]
    """

    noise_scales: Sequence[float]

    def __post_init__(self):
        scales = tuple(self.noise_scales)
        if not scales:
            raise ValueError("noise_scales must hold at least one noise level, got none.")
        for scale in scales:
            check_positive(scale, "every one of noise_scales")
        object.__setattr__(self, "noise_scales", tuple(float(scale) for scale in scales))

    @property
    def noise_scale(self) -> float:
        """The smallest level: that of the density that is learned in the end."""
        return min(self.noise_scales)

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``."""
        score = batched_score(network, batch)
        level_key, noise_key = jax.random.split(key)
        dtype = jnp.result_type(batch)
        scales = jax.random.choice(level_key, jnp.asarray(self.noise_scales, dtype), (len(batch),))
        noise = jax.random.normal(noise_key, jnp.shape(batch), dtype)
        spread = scales.reshape(-1, *[1] * (batch.ndim - 1))
        scores = map_rows(score, condition, batch + spread * noise, scales)
        return 0.5 * sum_event((spread * scores + noise) ** 2)
