"""Axes to draw in, and Matplotlib itself, which is imported here and nowhere else."""

from __future__ import annotations

from typing import Any


def pyplot() -> Any:
    """Return ``matplotlib.pyplot``, or say how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "figures need Matplotlib, which is not installed: "
            "pip install 'numpyro_score[plotting]'."
        ) from error
    return plt


def axes_or_new(ax: Any, **options: Any) -> Any:
    """Return ``ax``, or where it is None the axes of a new figure."""
    plt = pyplot()
    if ax is not None:
        return ax
    return plt.subplots(layout="constrained", **options)[1]


def state_field(mcmc: Any, name: str, what: str) -> Any:
    """Return a field of the last state of an ``MCMC``, or say why there is none.

    :param what: that field, in words, for the message.
    """
    if not hasattr(mcmc, "last_state") or not hasattr(mcmc, "sampler"):
        raise TypeError(f"give an MCMC after its run, got {type(mcmc).__name__}.")
    if mcmc.last_state is None:
        raise RuntimeError("this MCMC has not run yet: call mcmc.run(...) first.")
    value = getattr(mcmc.last_state, name, None)
    if value is None:
        kernel = type(mcmc.sampler).__name__
        raise ValueError(f"the draws are those of {kernel}, which has no {what}.")
    return value
