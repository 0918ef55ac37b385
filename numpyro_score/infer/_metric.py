"""The metric that makes a target round, from draws and scores together.

Everything here happens in the coordinates v = L⁻¹ z of the metric L Lᵀ in force, in which the
target is already roughly round. So the update is well conditioned in float32, and where a window
taught nothing about a direction the old metric stays.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from numpyro_score._precision import exact_products
from numpyro_score._typing import Array
from numpyro_score.infer._moments import Moments, add_rows, init_moments
from numpyro_score.infer._schedule import MOVES_PER_DIMENSION

_RIDGE = 1e-5
_PRIOR_DRAWS = 5.0


class MetricState(NamedTuple):
    """What a window has seen of a group of chains, in whitened coordinates.

    - **displacement** - where each chain is, from the middle of the group, ``(chains, d)``.
    - **draws**, **scores** - moments over the group and the window.
    - **num_moves** - accepted proposals.
    """

    displacement: Array
    draws: Moments
    scores: Moments
    num_moves: Array


def init_metric(displacement: Array, dense: bool) -> MetricState:
    """Start a window with chains at ``displacement``, ``(chains, d)``, from any common point."""
    empty = init_moments(displacement.shape[-1], dense)
    centred = displacement - displacement.mean(0)
    return MetricState(centred, empty, empty, jnp.zeros((), int))


def update_metric(state: MetricState, step: Array, score: Array, moved: Array) -> MetricState:
    """Add a transition of each chain to the window.

    :param step: the whitened displacements ``(chains, d)``, zero where a chain did not move.
    :param score: the whitened scores where the chains are now, ``(chains, d)``.
    :param moved: which proposals were accepted, ``(chains,)``.
    """
    displacement = state.displacement + step
    return MetricState(
        displacement,
        add_rows(state.draws, displacement),
        add_rows(state.scores, score),
        state.num_moves + jnp.sum(moved),
    )


def restart_metric(state: MetricState, factor: Array) -> MetricState:
    """Start the next window, in the coordinates that the metric's ``factor`` leads to."""
    dense = factor.ndim == 2
    displacement = state.displacement - state.displacement.mean(0)
    if dense:
        displacement = solve_triangular(factor, displacement.T, lower=True).T
    else:
        displacement = displacement / factor
    return init_metric(displacement, dense)


@exact_products
def turn_score(score: Array, factor: Array) -> Array:
    """Return the scores ``(…, d)`` in the coordinates that the metric's ``factor`` leads to."""
    return score @ factor if factor.ndim == 2 else score * factor


@exact_products
def finish_metric(state: MetricState, dense: bool) -> Array:
    """Return the factor T with which L becomes L T: a vector, or a lower triangle if ``dense``.

    T Tᵀ minimizes the Fisher divergence between a Gaussian and the target over the window: it
    solves Σ G Σ = C for the covariances C of draws and G of scores (Seyboldt, Carlson & Carpenter,
    2026, as in Nutpie and in BlackJAX's low-rank adaptation).
    For a Gaussian target that is exact, up to a ridge, as soon as the window spans the space,
    however correlated its draws are; a sample covariance of as many draws is far off, and
    collapses the kernel where it spans less. With fewer than two moves per dimension only the
    diagonal is updated.
    """
    covariance, precision = state.draws.covariance, state.scores.covariance
    if not dense:
        return _or_identity(
            jnp.sqrt(diagonal_solution(covariance, precision)), jnp.ones(covariance.shape)
        )
    size = len(covariance)
    scale = jnp.sqrt(diagonal_solution(jnp.diagonal(covariance), jnp.diagonal(precision)))
    enough = state.num_moves >= MOVES_PER_DIMENSION * size
    factor = jnp.where(enough, dense_solution(covariance, precision, scale), jnp.diag(scale))
    return _or_identity(factor, jnp.eye(size))


@exact_products
def finish_metric_of_draws(state: MetricState, dense: bool) -> Array:
    """Return the factor T from draws alone, for a kernel that knows no scores.

    T Tᵀ is the covariance of the window, drawn towards one that is round and of the same level, as
    if that had been seen in 5 draws more. A random walk needs about one move per dimension for each
    draw that counts. With fewer than two moves per dimension only the diagonal is updated.
    """
    covariance = state.draws.covariance
    variance = jnp.diagonal(covariance) if dense else covariance
    size = len(variance)
    num_draws = state.num_moves / size
    trust = num_draws / (num_draws + _PRIOR_DRAWS)
    # Of logarithms: a level of its own for each coordinate, whatever orders of magnitude apart.
    log_variance = jnp.log(variance)
    scale = jnp.exp(0.5 * (trust * log_variance + (1 - trust) * log_variance.mean()))
    if not dense:
        return _or_identity(scale, jnp.ones(size))
    sd = jnp.sqrt(variance)
    correlation = trust * covariance / jnp.outer(sd, sd) + (1 - trust) * jnp.eye(size)
    enough = state.num_moves >= MOVES_PER_DIMENSION * size
    root = jnp.linalg.cholesky(jnp.where(enough, correlation, jnp.eye(size)))
    return _or_identity(scale[:, None] * root, jnp.eye(size))


def diagonal_solution(variance: Array, score_variance: Array) -> Array:
    """Return σ² of the diagonal solution: variance of draws over variance of scores, rooted."""
    level = jnp.mean(jnp.sqrt(variance * score_variance))
    ridge = _RIDGE * jnp.where(level > 0, level, 1.0)
    return jnp.sqrt((variance + ridge) / (score_variance + ridge))


@exact_products
def dense_solution(covariance: Array, precision: Array, scale: Array) -> Array:
    """Return the lower triangle T with T Tᵀ G T Tᵀ = C, solved in units of ``scale``.

    With C = J Jᵀ, G = K Kᵀ and the singular value decomposition Kᵀ J = U S Wᵀ, the solution is
    T Tᵀ = J W S⁻¹ Wᵀ Jᵀ. Matrix square roots would do as well on paper; their spread of eigenvalues
    is the square of that of S, which is more than float32 holds.
    """
    covariance = covariance / jnp.outer(scale, scale)
    precision = precision * jnp.outer(scale, scale)
    # Draws that are still on their way have too small a C and G; their common level drops out.
    level = jnp.mean(jnp.sqrt(jnp.diagonal(covariance) * jnp.diagonal(precision)))
    level = jnp.where(level > 0, level, 1.0)
    draws_root, scores_root = _roots(jnp.stack([covariance, precision]) / level)
    _, singular_values, right = jnp.linalg.svd(scores_root.T @ draws_root)
    root = draws_root @ right.T / jnp.sqrt(singular_values)
    upper = jnp.linalg.qr(root.T, mode="r")
    return scale[:, None] * (upper * jnp.sign(jnp.diagonal(upper))[:, None]).T


def _roots(matrices: Array) -> Array:
    """Return the Cholesky factors of matrices of unit diagonal with a ridge above their rounding.

    All in one call. JAX on a CPU spreads LAPACK's work on a batch over its threads, each call
    waiting in a thread of its own: as many calls at once as there are threads wait for ever.
    """
    size, epsilon = matrices.shape[-1], jnp.finfo(matrices.dtype).eps
    return jnp.linalg.cholesky(matrices + (_RIDGE + 5 * size * epsilon) * jnp.eye(size))


def _or_identity(factor: Array, identity: Array) -> Array:
    return jnp.where(jnp.all(jnp.isfinite(factor)), factor, identity)
