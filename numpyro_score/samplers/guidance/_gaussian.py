"""The measurement as a normal, with what is not known of the data in its covariance."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.samplers.guidance.base import Likelihood, Linearized

_MOST_DENSE = 256


def gaussian_likelihood(
    at: Linearized, covary: Callable[[Array], Array], num_iterations: int | None
) -> Likelihood:
    r"""Return that of :math:`N(y; F(D), s^2 I + K)`, whose covariance counts as constant.

    :param covary: v to K v, K the covariance of F(data) given the particle, to first order.
    :param num_iterations: of conjugate gradients; None for a dense K, in as many derivatives as
        ``y`` has entries, and with a log density.
    """
    variance = at.noise_std**2
    if num_iterations is not None:
        solved, _ = cg(lambda v: variance * v + covary(v), at.residual, maxiter=num_iterations)
        return Likelihood(at.to_particle(solved), None)
    _refuse_large(at.residual.size)
    # Of a network that is no exact denoiser, K is neither symmetric nor positive: eigh takes its
    # symmetric part, and a variance below 0 is one of 0.
    basis = jnp.eye(at.residual.size, dtype=at.residual.dtype)
    values, vectors = jnp.linalg.eigh(jax.vmap(covary)(basis))
    variances = variance + jnp.maximum(values, 0)
    turned = jnp.matmul(vectors.T, at.residual, precision="highest")
    log_prob = -0.5 * jnp.sum(turned**2 / variances + jnp.log(2 * jnp.pi * variances))
    solved = jnp.matmul(vectors, turned / variances, precision="highest")
    return Likelihood(at.to_particle(solved), log_prob)


def check_iterations(num_iterations: int | None) -> None:
    """Refuse what is neither None nor a number of iterations."""
    if num_iterations is not None:
        check_int(num_iterations, "num_iterations", 1)


def _refuse_large(size: int) -> None:
    if size > _MOST_DENSE:
        raise ValueError(
            f"a measurement of {size} numbers is too large for a covariance matrix (at most "
            f"{_MOST_DENSE}): give a number of conjugate gradients, such as num_iterations=10."
        )
