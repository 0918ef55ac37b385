"""What the effective number of particles says of weighted draws."""

from __future__ import annotations

import warnings

import numpy as np

_FEW = 0.05


def tell_few(ess: np.ndarray, num_particles: int) -> None:
    """Warn where few particles were effective.

    :param ess: shape ``(..., num_levels + 1)``, the levels from the largest noise down.
    :raises FloatingPointError: weights are no numbers.
    """
    _refuse_lost(ess)
    if ess.min() < _FEW * num_particles:
        warnings.warn(
            f"only {ess.min():.0f} of {num_particles} particles were effective after reweighting "
            "to one of the noise levels: draws descend from these few, and the weights of modes "
            "are as uncertain. Raise num_levels or num_particles.",
            stacklevel=3,
        )


def _refuse_lost(ess: np.ndarray) -> None:
    lost = np.isnan(ess).reshape(-1, ess.shape[-1]).any(0)
    if lost.any():
        raise FloatingPointError(
            "the weights of particles must be numbers, and from noise level "
            f"{lost.argmax()} of {len(lost) - 1} on, counted from the largest, they are none: "
            "log_factor is -inf at all particles, or NaN or +inf at one of them, or the derivative "
            "of a score is. Give more particles where log_factor is -inf nearly everywhere; else "
            "mend it, or the score."
        )
