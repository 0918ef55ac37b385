"""The score of a density of two numbers, as arrows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from numpyro_score._typing import Array
from numpyro_score.plotting._axes import axes_or_new
from numpyro_score.plotting._plane import check_points, find_plane, scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpyro.distributions import Distribution


def plot_score(
    distribution: Distribution,
    *,
    data: Array | None = None,
    draws: Array | None = None,
    extent: Sequence[float] | None = None,
    num_points: int = 20,
    color: str | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    r"""Show the score ∇ log p of a distribution of two numbers, with data and draws.

    An arrow points where log p grows. A score spans orders of magnitude, so that its size
    :math:`m` is told by the colour, on a logarithmic scale; the arrow has the length
    :math:`m / (m + \tilde m)` of a full one, with the median :math:`\tilde m` of those shown.

    On top of a density: ``plot_score(d, ax=plot_density(d, data=x), color="white")``.

    :param distribution: of ``event_shape`` (2,) and ``batch_shape`` (), of NumPyro or of this
        package. Outside of its support nothing is shown.
    :param data: rows of shape ``(..., 2)``; at most 500 of them are shown, spread over all.
    :param draws: the same, in another colour.
    :param extent: ``(left, right, bottom, top)``; by default the frame of what is in ``ax``, or
        that of data and draws, a tenth wider on each side.
    :param num_points: how many arrows along each axis.
    :param color: one colour for all arrows, in place of a scale of colours.
    :param ax: axes to draw in; by default those of a new figure.
    :param kwargs: of :meth:`matplotlib.axes.Axes.quiver`.
    :return: the axes.
    :raises TypeError: not a NumPyro distribution.
    :raises ValueError: one of another shape, or no way to know where to look.
    :raises FloatingPointError: the score is not finite within the support.

    >>> import numpyro.distributions as dist
    >>> from numpyro_score.plotting import plot_score
    >>> ax = plot_score(dist.Normal(0.0, 1.0).expand([2]).to_event(1), extent=(-2, 2, -2, 2))
    >>> len(ax.collections[0].get_offsets())
    400
    """
    plane = find_plane(distribution, data, draws, extent, ax)
    check_points(num_points)
    ax = axes_or_new(ax)
    points = plane.grid(num_points, num_points).reshape(-1, 2)
    points = points[np.broadcast_to(distribution.support(points), len(points))]
    score = _score(distribution, points)
    size = np.linalg.norm(score, axis=1)
    # Where the score is 0, at a mode, there is no arrow.
    points, score, size = points[size > 0], score[size > 0], size[size > 0]
    arrow = score / (size + np.median(size))[:, None] if len(size) else score
    style: dict[str, Any] = {
        "angles": "xy",
        "scale": num_points,
        "scale_units": "width",
        "pivot": "mid",
    }
    style |= {"width": 0.07 / num_points, "zorder": 2, **kwargs}
    if color is None:
        from matplotlib.colors import LogNorm

        # A few points next to a mode would take most of the scale.
        norm = LogNorm(*np.quantile(size, [0.05, 0.95])) if len(size) else None
        style = {"norm": norm, "cmap": "plasma_r"} | style
        arrows = ax.quiver(*points.T, *arrow.T, size, **style)
        ax.figure.colorbar(arrows, ax=ax, label="size of the score", extend="both")
    else:
        ax.quiver(*points.T, *arrow.T, color=color, **style)
    scatter(ax, data, draws)
    plane.frame(ax)
    return ax


def _score(distribution: Any, points: np.ndarray) -> np.ndarray:
    @jax.jit
    def at(distribution: Any, points: Array) -> Array:
        if hasattr(distribution, "score"):
            return distribution.score(points)
        return jax.vmap(jax.grad(distribution.log_prob))(points)

    score = np.asarray(at(distribution, points), float)
    lost = ~np.isfinite(score).all(1)
    if lost.any():
        raise FloatingPointError(
            f"the score is not finite at {lost.sum():,} of {len(points):,} points, such as "
            f"{points[lost][0].tolist()}."
        )
    return score
