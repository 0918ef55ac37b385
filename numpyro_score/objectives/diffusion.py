"""Denoising score matching over the time of a diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.objectives._base import batched_score, map_rows, sum_event
from numpyro_score.sde import SDE
from numpyro_score.sde.base import check_sde

Weighting: TypeAlias = Literal["noise", "likelihood"]


@dataclass(frozen=True)
class DiffusionScoreMatching:
    r"""Denoising score matching at random times of a diffusion, for one network of all times.

    One loss per example :math:`x_0`, at a time t drawn uniformly from that of the diffusion (by its
    ``training_times``, where it has others, as :class:`~numpyro_score.sde.EDM` does), with
    :math:`x_t = \alpha(t) x_0 + \sigma(t) \varepsilon` and :math:`\varepsilon \sim N(0, I)`:

    .. math:: \tfrac12 \lambda(t) \| s_\theta(x_t, t) + \varepsilon / \sigma(t) \|^2

    ``weighting="noise"`` has :math:`\lambda = \sigma^2`, which makes all times count about alike
    and samples look best; ``"likelihood"`` has :math:`\lambda = g^2`, the integral of which bounds
    the negative log-likelihood of the reverse diffusion, at a larger variance, and with uniform
    times always.

    Use it for a density that is to be drawn from, evaluated, or used as the prior of an inverse
    problem with many modes. Not where one noise level will do: a network without a time is easier
    to learn with :class:`DenoisingScoreMatching`.

    Sources: Y. Song et al., Score-based generative modeling through stochastic differential
    equations, ICLR (2021), equation 7; Y. Song et al., Maximum likelihood training of score-based
    diffusion models, NeurIPS (2021), for the second weighting.

    :param sde: a diffusion of :mod:`numpyro_score.sde`.
    :param weighting: ``"noise"`` or ``"likelihood"``.
    :raises ValueError: another ``weighting``.
    :raises TypeError: ``sde`` is none.

    Called with ``(network, batch, key, condition=None)``: an energy or a score (anything that
    :func:`~numpyro_score.networks.as_network` accepts) ``network(x, t)`` or ``network(x, t,
    condition)``, where ``t`` has the shape ``()``; a batch of shape ``(n, *event_shape)``, a
    random key, and a condition of shape ``(n, ...)``. It returns shape ``(n,)``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.objectives import DiffusionScoreMatching
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.1, 10.0)
    >>> score_at_zero = lambda x, t: -x / sde.marginal_std(t) ** 2
    >>> losses = DiffusionScoreMatching(sde)(score_at_zero, jnp.zeros((3, 2)), jax.random.key(0))
    >>> bool((losses < 1e-9).all())
    True
    """

    sde: SDE
    weighting: Weighting = "noise"

    def __post_init__(self):
        check_sde(self.sde)
        if self.weighting not in get_args(Weighting):
            raise ValueError(f"weighting must be 'noise' or 'likelihood', got {self.weighting!r}.")

    @property
    def noise_scale(self) -> float:
        """σ at the first time: that of the density that is learned in the end."""
        return float(self.sde.marginal_std(jnp.asarray(self.sde.t_min, float)))

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``."""
        score = batched_score(network, batch)
        time_key, noise_key = jax.random.split(key)
        dtype = jnp.result_type(batch)
        sde = self.sde
        uniform = self.weighting == "likelihood"
        times = SDE.training_times if uniform else type(sde).training_times
        t = times(sde, time_key, (len(batch),)).astype(dtype)
        noise = jax.random.normal(noise_key, jnp.shape(batch), dtype)
        column = t.reshape(-1, *[1] * (batch.ndim - 1))
        std = sde.marginal_std(column)
        blurred = sde.mean_scale(column) * batch + std * noise
        scores = map_rows(score, condition, blurred, t)
        losses = 0.5 * sum_event((std * scores + noise) ** 2)
        if self.weighting == "noise":
            return losses
        return losses * (sde.diffusion(t) / sde.marginal_std(t)) ** 2
