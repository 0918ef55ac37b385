"""Pseudoinverse guidance: what is not known of the data is alike in all directions."""

from __future__ import annotations

from dataclasses import dataclass

from numpyro_score._checks import check_positive
from numpyro_score.samplers.guidance._gaussian import check_iterations, gaussian_likelihood
from numpyro_score.samplers.guidance.base import Guidance, Likelihood, Linearized


@dataclass(frozen=True)
class PiGDM(Guidance):
    r"""ΠGDM: data given a particle are taken for :math:`N(D, r^2 I)`.

    .. math:: p(y \mid \hat x) = N(y; F(D), r^2 A A^\top + s^2 I), \qquad
              r^2 = \frac{\hat\sigma^2 \tau^2}{\hat\sigma^2 + \tau^2}

    with A the Jacobian of F at D, :math:`\hat\sigma = \sigma / \alpha` and τ the scale of the data;
    the published r has τ = 1. Exact for normal data of covariance :math:`\tau^2 I` and a linear F.

    *Use it* where derivatives of the score are dear: one a step, however large the measurement.
    *Do not* where data vary much more in some directions than in others, as images do: there
    :class:`MomentMatching` learns from the score what this assumes.

    Source: J. Song et al., Pseudoinverse-guided diffusion models for inverse problems, ICLR (2023),
    section 3.

    :param data_scale: τ, in units of the data.
    :param num_iterations: of conjugate gradients, each of them one Aᵀ and one A. None for a dense
        covariance, which :func:`~numpyro_score.samplers.guidance.twisted_diffusion` needs, up to
        256 numbers in ``y``.
    :raises ValueError: numbers out of range; when it runs, a measurement too large for None.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.samplers.guidance import Measurement, PiGDM, guided_score
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.01, 20.0)
    >>> score = lambda x, t: -x / (4 + sde.marginal_std(t) ** 2)  # N(0, 4) at t = 0
    >>> second = Measurement(lambda x: x[1:], jnp.array([1.0]), noise_std=1.0)
    >>> guided = guided_score(score, sde, second, (2,), guidance=PiGDM(data_scale=2.0))
    >>> value = guided(jnp.array([0.0, 0.8]), 0.5)  # at the mean of the posterior
    >>> bool(jnp.allclose(value, 0.0, atol=1e-4))
    True
    """

    data_scale: float = 1.0
    num_iterations: int | None = None

    def __post_init__(self) -> None:
        check_positive(self.data_scale, "data_scale")
        check_iterations(self.num_iterations)

    def likelihood(self, at: Linearized) -> Likelihood:
        """Return what the measurement says of one particle."""
        variance = at.noise**2 / (1 + (at.noise / self.data_scale) ** 2)
        return gaussian_likelihood(
            at, lambda v: variance * at.to_measurement(at.to_data(v)), self.num_iterations
        )
