"""A diffusion seen from the data: x / α, whose noise is σ / α and whose mean does not move."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from numpyro_score._typing import Array
from numpyro_score.sde import SDE, convert


class Relative(NamedTuple):
    """Particles at one time, with what the score says of where they came from.

    - **x** - x / α.
    - **noise** - σ / α.
    - **denoised** - the expected data.
    """

    x: Array
    noise: Array
    denoised: Array


def look(x: Array, t: Array, sde: SDE, score: Callable[..., Array]) -> Relative:
    """Evaluate the score at particles ``x`` at time ``t``: once."""
    denoised = convert(score(x, t), x, t, sde, source="score", target="denoised")
    return Relative(x / sde.mean_scale(t), sde.noise_scale(t), denoised)
