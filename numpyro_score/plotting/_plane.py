"""The plane that a density of two numbers is shown in: its frame, its points, and rows in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist

from numpyro_score._checks import check_int

_MARGIN = 0.1
_MAX_POINTS = 500


class Plane(NamedTuple):
    """A frame in the plane.

    - **extent** - left, right, bottom and top.
    - **names** - of the two axes.
    """

    extent: tuple[float, float, float, float]
    names: tuple[str, str]

    def grid(self, columns: int, rows: int) -> np.ndarray:
        """Return the middles of ``rows × columns`` cells, shape ``(rows, columns, 2)``."""
        left, right, bottom, top = self.extent
        x = left + (right - left) * (np.arange(columns) + 0.5) / columns
        y = bottom + (top - bottom) * (np.arange(rows) + 0.5) / rows
        return np.stack(np.meshgrid(x, y), -1).astype(jax.dtypes.canonicalize_dtype(float))

    def frame(self, ax: Any) -> None:
        """Set limits and names of the axes."""
        ax.set(xlim=self.extent[:2], ylim=self.extent[2:])
        ax.set(xlabel=self.names[0], ylabel=self.names[1])


def find_plane(distribution: Any, data: Any, draws: Any, extent: Any, ax: Any) -> Plane:
    """Return the frame that was given, or that of what is in the axes, or that of the rows."""
    _check_planar(distribution)
    columns = getattr(getattr(distribution, "network", None), "columns", None)
    names = tuple(columns) if columns else ("x₁", "x₂")
    rows = [rows for rows in (_rows(data, "data"), _rows(draws, "draws")) if rows is not None]
    if extent is None and ax is not None and ax.has_data():
        extent = (*ax.get_xlim(), *ax.get_ylim())
    if extent is None:
        if not rows:
            raise ValueError(
                "where to look is not known: give data, draws, or "
                "extent=(left, right, bottom, top)."
            )
        every = np.concatenate(rows)
        low, high = every.min(0), every.max(0)
        wider = _MARGIN * np.where(high > low, high - low, 1.0)
        extent = np.stack([low - wider, high + wider], 1).ravel()
    extent = tuple(float(bound) for bound in extent)
    if len(extent) != 4 or not extent[0] < extent[1] or not extent[2] < extent[3]:
        raise ValueError(
            "extent must be (left, right, bottom, top), with left < right and bottom < top; got "
            f"{extent}."
        )
    return Plane(extent, names)


def _check_planar(distribution: Any) -> None:
    if not isinstance(distribution, dist.Distribution):
        raise TypeError(
            f"a NumPyro distribution is needed, got {type(distribution).__name__}; a network "
            "becomes one by EnergyDistribution(network, event_shape=(2,))."
        )
    if distribution.event_shape != (2,):
        raise ValueError(
            "only a distribution of two numbers, of event_shape (2,), can be shown in the plane; "
            f"this one has {distribution.event_shape}. For vectors of other lengths see "
            "arviz.plot_pair of draws, for images plot_image_posterior."
        )
    if distribution.batch_shape != ():
        raise ValueError(
            f"this is a batch of distributions, of batch_shape {distribution.batch_shape}: show "
            "one at a time, with one condition."
        )


def _rows(rows: Any, name: str) -> np.ndarray | None:
    """Return points as ``(n, 2)``; leading axes, such as chains, are put in a row."""
    if rows is None:
        return None
    points = np.asarray(rows, float)
    if points.ndim < 2 or points.shape[-1] != 2 or not points.size:
        raise ValueError(f"{name} must have the shape (..., 2), got {points.shape}.")
    if not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite; {np.sum(~np.isfinite(points))} numbers are not.")
    return points.reshape(-1, 2)


def scatter(ax: Any, data: Any, draws: Any) -> None:
    """Show rows of data, and draws, each at most 500 of them, spread over all."""
    for rows, label, style in (
        (_rows(data, "data"), "data", {"color": "white", "edgecolors": "black", "linewidths": 0.4}),
        (_rows(draws, "draws"), "draws", {"color": "tab:red"}),
    ):
        if rows is None:
            continue
        shown = rows[:: -(-len(rows) // _MAX_POINTS)]
        size = 14 if len(shown) <= 300 else 5
        ax.scatter(*shown.T, s=size, label=label, zorder=3, **style)
    if data is not None or draws is not None:
        legend = ax.legend(loc="upper right", fontsize=8)
        for handle in legend.legend_handles:
            handle.set_sizes([14])


def check_points(num_points: int) -> None:
    """Refuse fewer points along an axis than a picture has."""
    check_int(num_points, "num_points", 2)
