"""A metric of standard deviations and a few long or short directions, from draws and scores.

A dense metric takes d² numbers and two moves a dimension to learn. Where correlations come down to
k directions this one takes 2 d k, and moves by the number of directions.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._precision import exact_products
from numpyro_score._typing import Array
from numpyro_score.infer._metric import dense_solution, diagonal_solution
from numpyro_score.infer._schedule import MOVES_PER_DIMENSION, Schedule
from numpyro_score.infer._whitening import LowRankWhitening

_ROWS_PER_RANK = 20
# The draws of a Langevin chain are few and slow, so that the directions sought are spread over more
# of their singular vectors than there are directions. With as many, one chain of 1,000 steps is
# left with a condition number of 150 to 780 where four times as many leave 13 to 25.
_VECTORS_PER_RANK = 4
_CUTOFF = 2.0  # variances nearer to 1 than by this factor are noise, as in Nutpie


class LowRankWindow(NamedTuple):
    """Rows that a window keeps of a group of chains, in whitened coordinates.

    - **displacement** - where each chain is, from the middle of the group, ``(chains, d)``.
    - **draws**, **scores** - evenly spaced over the window, ``(rows, chains, d)``.
    - **num_steps**, **num_moves** - steps so far, and proposals accepted in them.
    """

    displacement: Array
    draws: Array
    scores: Array
    num_steps: Array
    num_moves: Array


def window_strides(schedule: Schedule, num_rows: int) -> np.ndarray:
    """Return for each step of warm-up the number of steps between two rows of its window."""
    ends = np.flatnonzero(schedule.ends_window)
    lengths = np.diff(ends, prepend=-1)
    window = np.searchsorted(ends, np.arange(schedule.num_warmup)).clip(max=max(len(ends) - 1, 0))
    return -(-lengths // num_rows)[window] if len(ends) else np.ones(schedule.num_warmup, int)


def init_window(displacement: Array, max_rank: int) -> LowRankWindow:
    """Start a window with chains at ``displacement``, ``(chains, d)``, from any common point."""
    num_chains, size = displacement.shape
    num_rows = -(-_ROWS_PER_RANK * max_rank // num_chains)
    rows = jnp.zeros((num_rows, num_chains, size), displacement.dtype)
    centred = displacement - displacement.mean(0)
    return LowRankWindow(centred, rows, rows, jnp.zeros((), int), jnp.zeros((), int))


def update_window(
    window: LowRankWindow, step: Array, score: Array, moved: Array, stride: Array
) -> LowRankWindow:
    """Add a transition of each chain; arguments as those of ``update_metric``."""
    displacement = window.displacement + step
    # Beyond the last row a row is dropped.
    row = jnp.where(window.num_steps % stride == 0, window.num_steps // stride, len(window.draws))
    return LowRankWindow(
        displacement,
        window.draws.at[row].set(displacement, mode="drop"),
        window.scores.at[row].set(score, mode="drop"),
        window.num_steps + 1,
        window.num_moves + jnp.sum(moved),
    )


def finish_window(
    window: LowRankWindow, whitening: LowRankWhitening, score: Array, stride: Array
) -> tuple[LowRankWhitening, LowRankWindow, Array]:
    """Return the next whitening, and window and scores ``(chains, d)`` in its coordinates."""
    max_rank, size = len(whitening.stretch), len(whitening.scale)
    num_rows = len(window.draws)
    # A window shorter than its rows gives some twice: the shapes do not depend on its length.
    filled = jnp.minimum((window.num_steps - 1) // stride + 1, num_rows)
    rows = jnp.arange(num_rows) * filled // num_rows

    def in_standard_deviations(draws: Array, scores: Array) -> tuple[Array, Array]:
        longer = whitening.lengthen(draws, whitening.stretch)
        return longer, whitening.lengthen(scores, 1 / whitening.stretch)

    y, gradient = in_standard_deviations(window.draws[rows], window.scores[rows])
    enough = window.num_moves >= MOVES_PER_DIMENSION * min(size, 2 * max_rank)
    factor, vectors, stretch = low_rank_solution(
        y.reshape(-1, size), gradient.reshape(-1, size), max_rank
    )
    new = LowRankWhitening(whitening.scale * factor, vectors.T, jnp.where(enough, stretch, 1.0))
    good = jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), new))
    new = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, whitening)

    y, gradient = in_standard_deviations(window.displacement, score)
    displacement = new.whiten(whitening.scale * y)
    return new, init_window(displacement, max_rank), new.whiten_gradient(gradient / whitening.scale)


@exact_products
def low_rank_solution(draws: Array, scores: Array, max_rank: int) -> tuple[Array, Array, Array]:
    """Return D, U and S of the metric that minimizes the Fisher divergence over the rows.

    Seyboldt, Carlson & Carpenter (2026), algorithm 1. BlackJAX's ``fisher_score_low_rank`` is the
    same on paper, in a smaller subspace, and by inverses of matrices that float32 does not hold;
    the problem within the subspace is solved by singular values here, as for a dense metric.

    :param draws: ``(n, d)``, in coordinates in which no variable is far from a spread of 1.
    :param scores: scores there, ``(n, d)``.
    """
    draws, scores = draws - draws.mean(0), scores - scores.mean(0)
    scale = jnp.sqrt(diagonal_solution(jnp.mean(draws**2, 0), jnp.mean(scores**2, 0)))
    draws, scores = draws / scale, scores * scale
    # One call for both, as in `_metric`: two at once may wait for each other's threads.
    directions = jnp.linalg.svd(jnp.stack([draws, scores]), full_matrices=False)[2]
    directions = directions[:, : _VECTORS_PER_RANK * max_rank].reshape(-1, draws.shape[1])
    basis, _ = jnp.linalg.qr(directions.T)
    covariance, precision = _second_moments(draws @ basis), _second_moments(scores @ basis)
    sizes = jnp.sqrt(diagonal_solution(jnp.diagonal(covariance), jnp.diagonal(precision)))
    turned, stretch, _ = jnp.linalg.svd(dense_solution(covariance, precision, sizes))
    most = jnp.argsort(-jnp.abs(jnp.log(stretch)))[:max_rank]
    stretch = stretch[most]
    near = jnp.abs(jnp.log(stretch)) < 0.5 * np.log(_CUTOFF)
    return scale, basis @ turned[:, most], jnp.where(near, 1.0, stretch)


def _second_moments(rows: Array) -> Array:
    return rows.T @ rows / len(rows)
