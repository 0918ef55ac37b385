"""The metric that makes a target round, from draws and scores together.

Everything here happens in the coordinates v = L⁻¹ z of the metric L Lᵀ in force, in which the
target is already roughly round. So the update is well conditioned in float32, and where a window
taught nothing about a direction the old metric stays.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.adaptation.mass_matrix import WelfordAlgorithmState, welford_algorithm

from numpyro_score._typing import Array
from numpyro_score.infer._schedule import MOVES_PER_DIMENSION

_RIDGE = 1e-5


class MetricState(NamedTuple):
    """What a window has seen so far, in whitened coordinates."""

    displacement: Array
    draws: WelfordAlgorithmState
    scores: WelfordAlgorithmState
    num_moves: Array


def init_metric(size: int, dense: bool) -> MetricState:
    """Start a window in ``size`` dimensions."""
    init, _, _ = welford_algorithm(is_diagonal_matrix=not dense)
    empty = jax.tree.map(jnp.asarray, init(size))
    return MetricState(jnp.zeros(size), empty, empty, jnp.zeros((), int))


def update_metric(
    state: MetricState, step: Array, score: Array, moved: Array, dense: bool
) -> MetricState:
    """Add a transition to the window.

    :param step: the whitened displacement of the chain, zero where it did not move.
    :param score: the whitened score where the chain is now.
    :param moved: whether the proposal was accepted.
    """
    _, update, _ = welford_algorithm(is_diagonal_matrix=not dense)
    displacement = state.displacement + step
    return MetricState(
        displacement,
        update(state.draws, displacement),
        update(state.scores, score),
        state.num_moves + moved,
    )


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
    _, _, final = welford_algorithm(is_diagonal_matrix=not dense)
    covariance, precision = final(state.draws)[0], final(state.scores)[0]
    if not dense:
        return _or_identity(jnp.sqrt(_diagonal(covariance, precision)), jnp.ones(covariance.shape))
    size = len(state.displacement)
    scale = jnp.sqrt(_diagonal(jnp.diagonal(covariance), jnp.diagonal(precision)))
    enough = state.num_moves >= MOVES_PER_DIMENSION * size
    factor = jnp.where(enough, _dense_factor(covariance, precision, scale), jnp.diag(scale))
    return _or_identity(factor, jnp.eye(size))


def _diagonal(variance: Array, score_variance: Array) -> Array:
    """Return σ² of the diagonal solution: variance of draws over variance of scores, rooted."""
    level = jnp.mean(jnp.sqrt(variance * score_variance))
    ridge = _RIDGE * jnp.where(level > 0, level, 1.0)
    return jnp.sqrt((variance + ridge) / (score_variance + ridge))


def _dense_factor(covariance: Array, precision: Array, scale: Array) -> Array:
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
    draws_root = _cholesky(covariance / level)
    _, singular_values, right = jnp.linalg.svd(_cholesky(precision / level).T @ draws_root)
    root = draws_root @ right.T / jnp.sqrt(singular_values)
    upper = jnp.linalg.qr(root.T, mode="r")
    return scale[:, None] * (upper * jnp.sign(jnp.diagonal(upper))[:, None]).T


def _cholesky(matrix: Array) -> Array:
    """Return the Cholesky factor of a matrix of unit diagonal with a ridge above its rounding."""
    size, epsilon = len(matrix), jnp.finfo(matrix.dtype).eps
    return jnp.linalg.cholesky(matrix + (_RIDGE + 5 * size * epsilon) * jnp.eye(size))


def _or_identity(factor: Array, identity: Array) -> Array:
    return jnp.where(jnp.all(jnp.isfinite(factor)), factor, identity)
