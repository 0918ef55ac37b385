"""The kernel Stein discrepancy of each chain as it gets longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Array
from numpyro_score.diagnostics import kernel_stein_discrepancy
from numpyro_score.plotting._axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEWEST = 20
_NUM_LENGTHS = 6
_MEDIAN_ROWS = 1_000


def plot_ksd(
    score: Callable[[Array], Array],
    draws: Array,
    *,
    lengthscale: float | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    r"""Show the kernel Stein discrepancy of the first n draws of each chain, against n.

    Both axes are logarithmic: chains that draw from the density fall along the dashed line,
    :math:`n^{-1/2}`, a little above it if their draws are correlated. One that levels off draws
    from another density, or has stayed in one mode; chains that lie apart do not agree. See
    :func:`numpyro_score.diagnostics.kernel_stein_discrepancy` for what it is.

    :param score: ∇ log p of one event, such as ``distribution.score``.
    :param draws: shape ``(num_chains, num_draws, *event_shape)``, as
        ``mcmc.get_samples(group_by_chain=True)`` has them; at least 20 draws.
    :param lengthscale: that of the discrepancy, the same for all; by default the median distance
        of two draws of all chains (of at most 1,000 of them).
    :param ax: axes to draw in; by default those of a new figure.
    :param kwargs: of :meth:`matplotlib.axes.Axes.plot`.
    :return: the axes.
    :raises ValueError: draws of another shape, too few, or that do not move.
    :raises FloatingPointError: a draw or score is not finite.

    >>> import jax
    >>> from numpyro_score.plotting import plot_ksd
    >>> draws = jax.random.normal(jax.random.key(0), (2, 200, 3))
    >>> ax = plot_ksd(lambda x: -x, draws)
    >>> [line.get_label() for line in ax.lines]
    ['chain 1', 'chain 2', '∝ 1/√n']
    """
    if jnp.ndim(draws) < 3 or jnp.shape(draws)[1] < _FEWEST:
        raise ValueError(
            "draws must have the shape (num_chains, num_draws, *event_shape), with at least "
            f"{_FEWEST} draws and an event of at least one axis; got {jnp.shape(draws)}. For one "
            "chain: draws[None]."
        )
    num_draws = jnp.shape(draws)[1]
    draws = jnp.asarray(draws)
    if lengthscale is None:
        lengthscale = _median_distance(np.asarray(draws, float))
    scores = jax.jit(jax.vmap(jax.vmap(score)))(draws)
    lengths = np.unique(np.geomspace(_FEWEST, num_draws, _NUM_LENGTHS).astype(int))

    def discrepancy(scores: Array, rows: Array) -> float:
        event_dim = rows.ndim - 1
        return float(
            kernel_stein_discrepancy(scores, rows, lengthscale=lengthscale, event_dim=event_dim)
        )

    found = np.array(
        [[discrepancy(s[:n], x[:n]) for n in lengths] for x, s in zip(draws, scores, strict=True)]
    )
    ax = axes_or_new(ax)
    for c, values in enumerate(found):
        style: dict[str, Any] = {"marker": "o", "ms": 4, "lw": 1, "label": f"chain {c + 1}"}
        ax.plot(lengths, values, **(style | kwargs))
    line = np.median(found[:, 0]) * np.sqrt(lengths[0] / lengths)
    ax.plot(lengths, line, "k--", lw=1, label="∝ 1/√n")
    ax.set(xscale="log", yscale="log", xlabel="number of draws n")
    ax.set_ylabel("kernel Stein discrepancy")
    if len(found) <= 8:
        ax.legend(fontsize=8)
    return ax


def _median_distance(draws: np.ndarray) -> float:
    rows = draws.reshape(draws.shape[0] * draws.shape[1], -1)
    rows = rows[:: -(-len(rows) // _MEDIAN_ROWS)]
    square = np.sum(rows**2, 1)
    squares = square[:, None] + square - 2 * rows @ rows.T
    median = float(np.sqrt(np.median(np.maximum(squares[np.triu_indices(len(rows), 1)], 0))))
    if not median > 0:
        raise ValueError(
            "half of the draws are one and the same: look at a chain that did not move, with "
            "plot_energy_trace or arviz.plot_trace."
        )
    return median
