"""When the draws of a diffusion were lost: what a compiled run cannot say."""

from __future__ import annotations

from collections.abc import Callable

import jax

from numpyro_score._typing import Array, Shape
from numpyro_score.samplers import last_normal, reverse_sde
from numpyro_score.sde import SDE

_NUM_RUNS = 500


def when_lost(
    rng_key: Array,
    score: Callable[[Array, Array], Array],
    sde: SDE,
    event_shape: Shape,
    data_scale: Array,
    num_steps: int,
) -> str:
    """Return when the reverse diffusion leaves the finite numbers, and how many of 500 runs do.

    :param score: ``score(x, t)`` of one event.
    """
    start_key, walk_key = jax.random.split(rng_key)
    x = last_normal(score, sde, event_shape, data_scale).sample(start_key, (_NUM_RUNS,))
    try:
        reverse_sde(walk_key, score, sde, x, num_steps=num_steps)
    except FloatingPointError as error:
        return f"of {_NUM_RUNS} other draws, {error}"
    return f"the score is NaN or too large on the way, but not on that of {_NUM_RUNS} other draws."
