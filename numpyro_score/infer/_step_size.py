"""Step sizes that nothing tunes: a number, or a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array

Schedule: TypeAlias = Callable[[Array], Array]


class StepSize(NamedTuple):
    """The step size of the last step, where ArviZ looks for it."""

    step_size: Array


def first_step_size(step_size: float | Schedule) -> float:
    """Return the step size that a chain begins with, or say why none can begin with it."""
    first: Any = step_size
    name = "step_size"
    if callable(step_size):
        first = step_size(jnp.zeros((), int))
        name = "step_size(0), the first of the schedule,"
    check_positive(first, name)
    if np.ndim(first):
        raise ValueError(f"{name} must be one number, got the shape {np.shape(first)}.")
    return float(first)


def step_size_at(step_size: float | Schedule, i: Array) -> Array:
    """Return the step size of step ``i``."""
    value = step_size(i) if callable(step_size) else step_size
    return jnp.asarray(value, jnp.result_type(float))
