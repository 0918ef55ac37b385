"""Moment matching: the covariance of the data given a particle is a derivative of the score."""

from __future__ import annotations

from dataclasses import dataclass

from numpyro_score.samplers.guidance._gaussian import check_iterations, gaussian_likelihood
from numpyro_score.samplers.guidance.base import Guidance, Likelihood, Linearized


@dataclass(frozen=True)
class MomentMatching(Guidance):
    r"""Data given a particle are taken for a normal of their own mean and covariance.

    .. math:: p(y \mid \hat x) = N(y; F(D), A V A^\top + s^2 I), \qquad
              V = \operatorname{Cov}[x_0 \mid x_t] = \frac{\sigma^2}{\alpha} \nabla_{x_t} D^\top

    with A the Jacobian of F at D; the derivative of V, the third moment, is left out. Exact for
    normal data of any covariance and a linear F. V is what is left of a difference where noise is
    large: off by about :math:`10^{-7} \sigma^2 / \alpha^2` in float32, which later steps forget.

    *Use it* first: no scale is to be chosen, and it comes nearest to the posterior. *Do not* where
    a derivative of the score for each number measured, or for each of some conjugate gradients, is
    too dear; nor expect the weights of modes to be right, which no normal tells apart:
    :func:`~numpyro_score.samplers.guidance.twisted_diffusion` weighs its draws.

    Sources: F. Rozet et al., Learning diffusion priors from observations by expectation
    maximization, NeurIPS (2024), section 4.2; B. Boys et al., Tweedie moment projected diffusions
    for inverse problems, Transactions on Machine Learning Research (2024). V is Tweedie's formula
    of second order.

    :param num_iterations: of conjugate gradients, each with one derivative of the score; few are
        enough. None for a dense covariance, which
        :func:`~numpyro_score.samplers.guidance.twisted_diffusion` needs, up to 256 numbers in
        ``y``: one derivative for each, and safe where the score is that of no density.
    :raises ValueError: a number of iterations below 1; when it runs, a measurement too large for
        None.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.samplers.guidance import Measurement, MomentMatching, guided_score
    >>> from numpyro_score.sde import VE
    >>> sde, scales = VE(0.01, 20.0), jnp.array([1.0, 2.0])
    >>> score = lambda x, t: -x / (scales**2 + sde.marginal_std(t) ** 2)
    >>> total = Measurement(lambda x: x.sum(), jnp.array(6.0), noise_std=1.0)
    >>> guided = guided_score(score, sde, total, (2,), guidance=MomentMatching())
    >>> value = guided(jnp.array([1.0, 4.0]), 0.5)  # at the mean of the posterior
    >>> bool(jnp.allclose(value, 0.0, atol=1e-4))
    True
    """

    num_iterations: int | None = None

    def __post_init__(self) -> None:
        check_iterations(self.num_iterations)

    def likelihood(self, at: Linearized) -> Likelihood:
        """Return what the measurement says of one particle."""
        return gaussian_likelihood(
            at,
            lambda v: at.noise**2 * at.to_measurement(at.to_particle(v)),
            self.num_iterations,
        )
