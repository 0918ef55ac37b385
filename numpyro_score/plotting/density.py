"""The density of two numbers, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from numpyro_score._typing import Array
from numpyro_score.distributions._parts import is_normalized
from numpyro_score.plotting._axes import axes_or_new
from numpyro_score.plotting._plane import check_points, find_plane, scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpyro.distributions import Distribution


def plot_density(
    distribution: Distribution,
    *,
    data: Array | None = None,
    draws: Array | None = None,
    extent: Sequence[float] | None = None,
    num_points: int = 150,
    colorbar: bool = True,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """Show the density of a distribution of two numbers, with data and draws on top.

    Where ``log_prob`` lacks the normalizer the colour is the density as a part of its highest
    value *in the frame*: two such pictures show shapes, and cannot be compared in height. Look at a
    frame wider than the data, too: what a network makes of the places where it saw nothing is seen
    nowhere else.

    :param distribution: of ``event_shape`` (2,) and ``batch_shape`` (), of NumPyro or of this
        package. Outside of its support nothing is shown.
    :param data: rows of shape ``(..., 2)``; at most 500 of them are shown, spread over all.
    :param draws: the same, in another colour.
    :param extent: ``(left, right, bottom, top)``; by default the frame of what is in ``ax``, or
        that of data and draws, a tenth wider on each side.
    :param num_points: how many points along each axis.
    :param colorbar: whether to add one.
    :param ax: axes to draw in; by default those of a new figure.
    :param kwargs: of :meth:`matplotlib.axes.Axes.imshow`, such as ``vmax`` or ``cmap``.
    :return: the axes.
    :raises TypeError: not a NumPyro distribution.
    :raises ValueError: one of another shape, or no way to know where to look.
    :raises FloatingPointError: ``log_prob`` is NaN within the support.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.distributions import EnergyDistribution
    >>> from numpyro_score.plotting import plot_density
    >>> ring = EnergyDistribution(lambda x: 8 * (jnp.linalg.norm(x) - 1) ** 2, event_shape=(2,))
    >>> ax = plot_density(ring, extent=(-2, 2, -2, 2))
    >>> ax.images[0].get_array().shape
    (150, 150)
    """
    plane = find_plane(distribution, data, draws, extent, ax)
    check_points(num_points)
    ax = axes_or_new(ax)
    density, label = _density(distribution, plane.grid(num_points, num_points))
    style: dict[str, Any] = {
        "cmap": "viridis",
        "vmin": 0.0,
        "aspect": "auto",
        "interpolation": "bilinear",
    }
    image = ax.imshow(density, extent=plane.extent, origin="lower", **(style | kwargs))
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label=label)
    scatter(ax, data, draws)
    plane.frame(ax)
    return ax


def _density(distribution: Any, points: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the density at the points, NaN outside of the support, and what to call it."""
    inside = np.broadcast_to(distribution.support(points), points.shape[:-1])
    log_prob = np.asarray(jax.jit(lambda d, x: d.log_prob(x))(distribution, points), float)
    if np.isnan(log_prob[inside]).any():
        raise FloatingPointError(
            f"log_prob is NaN at {np.isnan(log_prob[inside]).sum():,} of {inside.sum():,} points."
        )
    log_prob = np.where(inside, log_prob, -np.inf)
    label = "density"
    if not is_normalized(distribution):
        peak = log_prob.max()
        log_prob = log_prob - (peak if np.isfinite(peak) else 0.0)
        label = "density / its peak"
    return np.where(inside, np.exp(log_prob), np.nan), label
