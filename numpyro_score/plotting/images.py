"""The posterior of an image: its mean and sd, some draws, and where it covers the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_score._checks import as_shape, check_int
from numpyro_score._typing import Array
from numpyro_score.diagnostics._ranks import order_interval
from numpyro_score.plotting._axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_COLORS = ("tab:blue", "0.9", "tab:red")


def plot_image_posterior(
    draws: Array,
    *,
    image_shape: tuple[int, int] | None = None,
    truth: Array | None = None,
    observation: Array | None = None,
    num_draws: int = 4,
    prob: float = 0.9,
    limits: tuple[float, float] | None = None,
    ax: Sequence[Axes] | None = None,
    **kwargs: Any,
) -> np.ndarray:
    """Show the posterior of an image in a row: truth, observation, mean, draws, sd, coverage.

    Draws are the last ones of the chains in turn, so that chains that disagree are seen to. Where
    the truth is known, the last panel tells for each pixel whether it lies within the central
    ``prob`` interval, and its title how many do: in the long run ``prob`` of them should, over
    many images; the pixels of one image go together, and a single figure may well miss it.

    :param draws: shape ``(num_chains, num_draws, rows, columns)``, or with pixels in one axis and
        ``image_shape``, as ``mcmc.get_samples(group_by_chain=True)`` has them.
    :param image_shape: rows and columns, where pixels lie in one axis.
    :param truth: the true image, of as many pixels; without it there is no panel of it, and none
        of the coverage.
    :param observation: an image to show beside it, of as many pixels.
    :param num_draws: how many draws to show.
    :param prob: of the intervals, which lie between order statistics of the draws; the title has
        the nearest probability that so many draws allow.
    :param limits: values that are shown white and black; by default the least and the greatest of
        those shown.
    :param ax: as many axes as there are panels; by default those of a new figure.
    :param kwargs: of :meth:`matplotlib.axes.Axes.imshow`, for the panels of images.
    :return: the axes, shape ``(num_panels,)``.
    :raises ValueError: draws, truth or observation of another shape, or not finite; ``prob`` not
        within 0 and 1; another number of axes.

    >>> import jax
    >>> from numpyro_score.plotting import plot_image_posterior
    >>> draws = jax.random.normal(jax.random.key(0), (2, 100, 64))
    >>> axes = plot_image_posterior(draws, image_shape=(8, 8), truth=draws[0, 0], num_draws=2)
    >>> [ax.get_title() for ax in axes][:4]
    ['truth', 'posterior mean', 'draw, chain 1', 'draw, chain 2']
    """
    images = _as_images(draws, image_shape)
    check_int(num_draws, "num_draws", 0)
    if not 0 < prob < 1:
        raise ValueError(f"prob must lie between 0 and 1, got {prob!r}.")
    num_chains, length, *shape = images.shape
    every = images.reshape(-1, *shape)
    panels: dict[str, np.ndarray] = {}
    for name, image in (("truth", truth), ("observation", observation)):
        if image is not None:
            panels[name] = _as_image(image, shape, name)
    panels["posterior mean"] = every.mean(0)
    for i in range(min(num_draws, num_chains * length)):
        chain, back = i % num_chains, i // num_chains
        which = f"draw {-1 - back}" if back else "draw"
        panels[f"{which}, chain {chain + 1}"] = images[chain, length - 1 - back]
    number = len(panels) + 1 + (truth is not None)
    axes = _row_of_axes(ax, number)
    figure = axes[0].figure
    low, high = limits or (
        min(float(p.min()) for p in panels.values()),
        max(float(p.max()) for p in panels.values()),
    )
    style = {"cmap": "gray_r", "vmin": low, "vmax": high} | kwargs
    for axis, (title, pixels) in zip(axes, panels.items(), strict=False):
        shown = _show(axis, title, pixels, **style)
    greys = list(axes[: len(panels)])
    beyond = "neither" if limits is None else "both"
    figure.colorbar(shown, ax=greys, location="bottom", aspect=60, label="pixel", extend=beyond)
    axis = axes[len(panels)]
    shown = _show(axis, "posterior sd", every.std(0), cmap="viridis", vmin=0)
    figure.colorbar(shown, ax=[axis], location="bottom", aspect=10, label="sd of pixel")
    if truth is not None:
        _show_coverage(axes[-1], every, panels["truth"], prob)
    return axes


def _show_coverage(axis: Any, every: np.ndarray, truth: np.ndarray, prob: float) -> None:
    from matplotlib.colors import ListedColormap

    outside, exact = order_interval(prob, len(every))
    low, high = np.sort(every, 0)[[outside - 1, -outside]]
    # -1, 0, 1: the truth lies below, within or above.
    side = (truth > high).astype(int) - (truth < low)
    title = f"{np.mean(side == 0):.0%} in {exact:.0%} interval"
    shown = _show(axis, title, side, cmap=ListedColormap(_COLORS), vmin=-1.5, vmax=1.5)
    bar = axis.figure.colorbar(shown, ax=[axis], location="bottom", aspect=10, label="truth")
    bar.set_ticks([-1, 0, 1], labels=["below", "in", "above"], fontsize=8)


def _show(axis: Any, title: str, image: np.ndarray, **style: Any) -> Any:
    axis.set_title(title, fontsize=10)
    axis.set(xticks=[], yticks=[])
    return axis.imshow(image, **style)


def _row_of_axes(ax: Any, number: int) -> np.ndarray:
    if ax is None:
        size = (1.7 * number, 2.9)
        return np.asarray(axes_or_new(None, ncols=number, squeeze=False, figsize=size)[0])
    axes = np.asarray(ax, object).ravel()
    if len(axes) != number:
        raise ValueError(f"there are {number} panels, got {len(axes)} axes.")
    return axes


def _as_images(draws: Any, image_shape: tuple[int, int] | None) -> np.ndarray:
    """Return draws as ``(chains, draws, rows, columns)``."""
    images = np.asarray(draws, float)
    shape = images.shape[2:] if image_shape is None else as_shape(image_shape, "image_shape")
    if images.ndim < 3 or len(shape) != 2 or np.prod(images.shape[2:]) != np.prod(shape):
        raise ValueError(
            "draws must have the shape (num_chains, num_draws, rows, columns), or pixels in one "
            f"axis and image_shape=(rows, columns); got {images.shape} and image_shape="
            f"{image_shape}. One chain: draws[None]."
        )
    if not images.size or not np.isfinite(images).all():
        raise ValueError("draws must be finite, and at least one.")
    return images.reshape(*images.shape[:2], *shape)


def _as_image(image: Any, shape: list[int], name: str) -> np.ndarray:
    pixels = np.asarray(image, float)
    if pixels.size != np.prod(shape) or not np.isfinite(pixels).all():
        raise ValueError(
            f"{name} must have {np.prod(shape)} finite pixels, of shape {tuple(shape)} or in one "
            f"axis; got {pixels.shape}."
        )
    return pixels.reshape(shape)
