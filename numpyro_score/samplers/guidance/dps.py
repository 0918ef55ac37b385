"""Diffusion posterior sampling: the measurement of what is expected."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from numpyro_score._checks import check_positive
from numpyro_score.samplers.guidance.base import Guidance, Likelihood, Linearized
from numpyro_score.samplers.guidance.measurement import log_normal


@dataclass(frozen=True)
class DPS(Guidance):
    r"""Take the data for what is expected of them: :math:`p(y \mid \hat x) = N(y; F(D), s^2 I)`.

    Its score is :math:`-\rho\, \nabla \|y - F(D)\|^2` with :math:`\rho = 1 / (2 s^2)`, which
    overrates the measurement as long as D is uncertain. The published method has instead

    .. math:: \rho = \frac{\zeta}{\hat\sigma^2\, \|y - F(D)\|}, \qquad
              \hat\sigma = \sigma / \alpha

    with which D moves by :math:`-\zeta\, \nabla \|y - F(D)\|^2 / \|y - F(D)\|`: down the residual,
    at the same pace whatever is left of it. The :math:`\zeta_i` of its algorithm 1 is then
    :math:`\zeta (1 - \hat\sigma_{i-1}^2 / \hat\sigma_i^2) / \|y - F(D)\|` in units of
    :math:`\hat x`, in proportion to the step, so that what is drawn does not hang on how many steps
    there are.

    *Use it* for one good reconstruction at one derivative a step, of nonlinear or large
    measurements. *Do not* for a posterior: noise_std does not enter, draws fit ``y`` more closely
    than its noise warrants, and their spread is not that of the posterior. :class:`MomentMatching`
    is closer, and :func:`~numpyro_score.samplers.guidance.twisted_diffusion` has no such bias.

    Source: H. Chung et al., Diffusion posterior sampling for general noisy inverse problems, ICLR
    (2023), equation 16 and algorithm 1.

    :param step_size: ζ, in units of the data, of about a tenth to one norm of the residual that
        data have without guidance; None for :math:`\rho = 1 / (2 s^2)`, stable where s is not
        small against what is measured.
    :raises ValueError: a ``step_size`` that is not above 0.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.samplers.guidance import DPS, Measurement, guided_diffusion
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.01, 20.0)
    >>> score = lambda x, t: -x / (1 + sde.marginal_std(t) ** 2)  # N(0, I) at t = 0
    >>> x = sde.prior((2,)).sample(jax.random.key(0), (200,))
    >>> first = Measurement(lambda x: x[:1], jnp.array([2.0]), noise_std=0.1)
    >>> draws = guided_diffusion(jax.random.key(1), score, sde, first, x, guidance=DPS(0.5))
    >>> bool(jnp.all(jnp.abs(draws[:, 0] - 2) < 0.3))
    True
    """

    step_size: float | None = 1.0

    def __post_init__(self) -> None:
        if self.step_size is not None:
            check_positive(self.step_size, "step_size")

    def likelihood(self, at: Linearized) -> Likelihood:
        """Return what the measurement says of one particle."""
        log_prob = log_normal(at.residual, at.noise_std)
        if self.step_size is None:
            return Likelihood(at.to_particle(at.residual / at.noise_std**2), log_prob)
        norm = jnp.linalg.norm(at.residual)
        unit = at.residual / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
        return Likelihood(2 * self.step_size / at.noise**2 * at.to_particle(unit), log_prob)
