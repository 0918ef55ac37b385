"""Friction, and the noise that belongs to it."""

from __future__ import annotations

import numpy as np

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array


def check_friction(alpha: float, beta: float, step_size: float) -> None:
    """Refuse a friction α and a known variance β that no integrator can work with.

    :param step_size: the first one, where it follows a schedule.
    """
    check_positive(alpha, "alpha")
    if isinstance(beta, (bool, str)) or not np.isfinite(beta) or beta < 0:
        raise ValueError(f"beta must be a finite number of at least 0, got {beta!r}.")
    if step_size * beta > 2 * alpha:
        raise ValueError(
            f"step_size * beta must not exceed 2 * alpha, or the noise would have a negative "
            f"variance; got {step_size:.3g} * {beta:.3g} > 2 * {alpha:.3g}. Raise alpha, or lower "
            "step_size or beta."
        )


def excess_noise(variance: Array, step_size: Array, alpha: float, beta: float) -> Array:
    """Return what minibatches add to a momentum beyond β, over the noise of the friction."""
    return step_size * (variance - beta) / (2 * alpha)
