"""Denoising score matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array
from numpyro_score.objectives._base import batched_score, map_rows, sum_event


@dataclass(frozen=True)
class DenoisingScoreMatching:
    r"""Denoising score matching: learn the score of the data blurred by normal noise.

    One loss per example :math:`x`, with :math:`\varepsilon \sim N(0, I)`:

    .. math:: \tfrac12 \| s_\theta(x + \sigma\varepsilon) + \varepsilon / \sigma \|^2

    summed over the event. Its expectation differs from the Fisher divergence between the
    network and the density of :math:`x + \sigma\varepsilon` by a constant.

    Use it first: it costs one score per example, in any dimension, and a smoothed density is
    easier to learn and to sample. Not where the noise would hide what matters: the network
    learns the density *after* blurring, with the variance enlarged by :math:`\sigma^2`. The
    variance of the loss grows as :math:`\sigma^{-2}`, so a small noise needs many steps, or a
    ``control_variate``: from the loss above

    .. math:: s_\theta(x) \cdot \varepsilon / \sigma + (\|\varepsilon\|^2 - d) / 2\sigma^2

    is subtracted, whose expectation is 0. The variance stays bounded as :math:`\sigma \to 0`, where
    the loss becomes that of :class:`SlicedScoreMatching`; it costs a second score per example, and
    is worth it where the noise is small against the structure of the data.

    Sources: P. Vincent, A connection between score matching and denoising autoencoders, Neural
    Computation 23 (2011); Z. Wang et al., A Wasserstein minimum velocity approach to learning
    unnormalized models, AISTATS (2020), for the control variate.

    :param noise_scale: standard deviation :math:`\sigma` of the noise, in units of the data.
    :param control_variate: whether to subtract it.
    :raises ValueError: ``noise_scale`` is not a finite number above 0.

    Called with ``(network, batch, key, condition=None)``: an energy or a score (anything that
    :func:`~numpyro_score.networks.as_network` accepts), a batch of shape ``(n, *event_shape)``,
    a random key, and a condition of shape ``(n, ...)``. It returns shape ``(n,)``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.objectives import DenoisingScoreMatching
    >>> objective = DenoisingScoreMatching(noise_scale=0.5)
    >>> batch = jnp.zeros((3, 2))
    >>> objective(lambda x: -x / 0.25, batch, jax.random.key(0)).tolist()
    [0.0, 0.0, 0.0]
    """

    noise_scale: float
    control_variate: bool = False

    def __post_init__(self):
        check_positive(self.noise_scale, "noise_scale")
        object.__setattr__(self, "noise_scale", float(self.noise_scale))

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``."""
        score = batched_score(network, batch)
        noise = jax.random.normal(key, jnp.shape(batch), jnp.result_type(batch))
        scores = map_rows(score, condition, batch + self.noise_scale * noise)
        if not self.control_variate:
            return 0.5 * sum_event((scores + noise / self.noise_scale) ** 2)
        # Multiplied out, so that large numbers that cancel never meet.
        change = (scores - map_rows(score, condition, batch)) / self.noise_scale
        constant = 0.5 * noise[0].size / self.noise_scale**2
        return sum_event(0.5 * scores**2 + change * noise) + constant
