"""Noise levels from data: where they end, and how many it takes to get there."""

from __future__ import annotations

from math import ceil, log, sqrt
from statistics import NormalDist

import numpy as np

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array

_ROWS = 2_000
_MAX_RATIO = 10.0
_BISECTIONS = 60


def largest_distance(data: Array) -> float:
    r"""Return the largest distance between two examples, which the largest noise should have.

    With less, noise around one example does not reach the others, and Langevin dynamics cannot pass
    from one to another at any level.

    Source: Y. Song & S. Ermon, Improved techniques for training score-based generative models,
    NeurIPS (2020), technique 1.

    :param data: shape ``(n, *event_shape)``; of more than 2,000 rows, as many evenly spread ones
        are looked at.
    :raises ValueError: fewer than two rows, or numbers that are not finite.

    >>> import numpy as np
    >>> from numpyro_score.sde import largest_distance
    >>> largest_distance(np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]]))
    5.0
    """
    rows = np.asarray(data)
    if rows.ndim < 2 or len(rows) < 2:
        raise ValueError(
            f"data must have the shape (n, *event_shape) with n of 2 or more, got {rows.shape}."
        )
    rows = rows[:: ceil(len(rows) / _ROWS)].reshape(-1, int(np.prod(rows.shape[1:])))
    # Differences of the bytes of an image would wrap around.
    rows = rows.astype(np.result_type(rows, np.float32), copy=False)
    if not np.isfinite(rows).all():
        raise ValueError("data must be finite.")
    return float(max(np.linalg.norm(rows[k:] - rows[k], axis=1).max() for k in range(len(rows))))


def geometric_ladder(
    largest: float, smallest: float, event_size: int, *, overlap: float = 0.5
) -> tuple[float, ...]:
    r"""Return noise levels of one ratio γ, between which samples of one are at home in the next.

    At noise σ a sample in D dimensions lies at a radius about :math:`N(\sqrt D \sigma,
    \sigma^2 / 2)` from its example. The ratio is the one for which, of those at level γσ, the
    fraction ``overlap`` lies within three standard deviations of the radius at σ:

    .. math:: \Phi(\sqrt{2D}(\gamma - 1) + 3\gamma) - \Phi(\sqrt{2D}(\gamma - 1) - 3\gamma) = 0.5

    Source: Y. Song & S. Ermon, Improved techniques for training score-based generative models,
    NeurIPS (2020), technique 2.

    :param largest: the first level, such as :func:`largest_distance`.
    :param smallest: the last, below the finest structure that matters.
    :param event_size: D, how many numbers an event has.
    :param overlap: see above, between 0 and 1.
    :return: decreasing levels, for :class:`~numpyro_score.objectives.LadderScoreMatching` and
        :func:`~numpyro_score.samplers.annealed_langevin`.
    :raises ValueError: unless 0 < ``smallest`` < ``largest``, or for a number out of range.

    >>> from numpyro_score.sde import geometric_ladder
    >>> levels = geometric_ladder(50.0, 0.01, 3 * 32 * 32)
    >>> len(levels), round(levels[0] / levels[1], 4)
    (220, 1.0397)
    """
    check_positive(smallest, "smallest")
    check_positive(largest, "largest")
    check_positive(event_size, "event_size")
    if not smallest < largest:
        raise ValueError(f"smallest must be below largest, got {smallest!r} and {largest!r}.")
    if not 0 < overlap < 1:
        raise ValueError(f"overlap must lie between 0 and 1, got {overlap!r}.")
    num_steps = ceil(log(largest / smallest) / log(_ratio(event_size, overlap)))
    levels = np.geomspace(largest, smallest, num_steps + 1)
    return tuple(float(level) for level in levels)


def _ratio(event_size: int, overlap: float) -> float:
    """Return γ; where levels of a factor of 10 still overlap by more, as in one dimension, 10."""
    root, cdf = sqrt(2 * event_size), NormalDist().cdf
    low, high = 1.0, _MAX_RATIO
    for _ in range(_BISECTIONS):
        gamma = 0.5 * (low + high)
        centre = root * (gamma - 1)
        if cdf(centre + 3 * gamma) - cdf(centre - 3 * gamma) > overlap:
            low = gamma
        else:
            high = gamma
    return high
