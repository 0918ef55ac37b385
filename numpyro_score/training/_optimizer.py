"""The optimizer of a fit."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import optax

from numpyro_score._checks import check_positive

_LEARNING_RATE = 1e-3
_MAX_GLOBAL_NORM = 10.0
_CACHED = 32


def choose_optimizer(
    optimizer: Any, learning_rate: float | None, num_steps: int
) -> optax.GradientTransformation:
    """Return the user's optimizer, or Adam with this learning rate."""
    if optimizer is None:
        return _adam(_rate(learning_rate), num_steps)
    if learning_rate is not None:
        raise ValueError(
            "an optimizer brings its own learning rate: give either optimizer or learning_rate, "
            "not both."
        )
    if not (callable(getattr(optimizer, "init", None)) and hasattr(optimizer, "update")):
        raise TypeError(
            "optimizer must be an optax.GradientTransformation such as optax.adam(1e-3), got "
            f"{type(optimizer).__name__}."
        )
    return optimizer


def describe_optimizer(optimizer: Any, learning_rate: float | None) -> dict[str, Any]:
    """Return what a checkpoint can know of the optimizer: a given one is made of functions."""
    if optimizer is None:
        return {"optimizer": "the default", "learning_rate": _rate(learning_rate)}
    return {"optimizer": "one that was given", "learning_rate": None}


def _rate(learning_rate: float | None) -> float:
    rate = _LEARNING_RATE if learning_rate is None else learning_rate
    check_positive(rate, "learning_rate")
    return float(rate)


# Optax makes new functions at each call; the same ones let a second fit reuse compiled code.
@lru_cache(maxsize=_CACHED)
def _adam(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(_MAX_GLOBAL_NORM),
        optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps)),
    )
