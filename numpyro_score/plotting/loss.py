"""The losses of a fit, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_score.plotting._axes import axes_or_new
from numpyro_score.training import FitResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_BLOCKS = 200


def plot_loss(result: FitResult, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Show the losses of a fit: of its minibatches, and of the rows that were held out.

    A curve of held-out rows that turns up while the other falls on is a network that learns the
    training rows by heart; what ``fit`` returned is the network at the mark, its lowest point. The
    two may lie apart by a constant and mean nothing: minibatches are judged with the network of
    that step and fresh noise, held-out rows with the averaged network and the same noise each time.

    :param result: what :func:`numpyro_score.training.fit` returned.
    :param ax: axes to draw in; by default those of a new figure.
    :param kwargs: of :meth:`matplotlib.axes.Axes.plot`, for both curves.
    :return: the axes.
    :raises TypeError: not a :class:`~numpyro_score.training.FitResult`.
    :raises ValueError: a fit without a step.

    >>> import numpy as np
    >>> from numpyro_score.plotting import plot_loss
    >>> from numpyro_score.training import FitResult
    >>> losses, steps = 1 / np.arange(1, 1001), np.arange(100, 1001, 100)
    >>> ax = plot_loss(FitResult(abs, losses, losses[steps - 1], steps, 1000, "finished"))
    >>> [line.get_label() for line in ax.lines]
    ['minibatches, mean of 5 steps', 'held out', 'lowest, at step 1,000']
    """
    if not isinstance(result, FitResult):
        raise TypeError(f"give what fit returned, a FitResult; got {type(result).__name__}.")
    if not len(result.losses):
        raise ValueError("this fit did not take a single step, so that there is nothing to show.")
    ax = axes_or_new(ax)
    style: dict[str, Any]
    size = -(-len(result.losses) // _MAX_BLOCKS)
    ends = np.arange(size, len(result.losses) + 1, size)
    # Steps left over at the end are fewer than one point is made of.
    means = np.asarray(result.losses[: ends[-1]], float).reshape(-1, size).mean(1)
    label = "minibatches" if size == 1 else f"minibatches, mean of {size:,} steps"
    style = {"lw": 0.8, "color": "tab:blue", "label": label}
    ax.plot(ends, means, **(style | kwargs))
    held_out = np.asarray(result.validation_losses, float)
    if len(held_out):
        style = {"lw": 1.5, "color": "tab:orange", "label": "held out"}
        ax.plot(result.validation_steps, held_out, **(style | kwargs))
        if np.isfinite(held_out).any():
            best = int(np.nanargmin(held_out))
            step = int(result.validation_steps[best])
            label = f"lowest, at step {step:,}"
            ax.plot([step], [held_out[best]], "kv", ms=5, label=label)
    ax.set(xlabel="step", ylabel="loss")
    if result.stopped != "finished":
        ax.set_title(f"ended at step {result.num_steps:,}: {result.stopped}", fontsize=9)
    ax.legend(fontsize=8)
    return ax
