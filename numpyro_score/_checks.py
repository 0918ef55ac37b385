"""Errors that say what was expected, what came, and how to mend it."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._typing import Shape


def is_concrete(x: Any) -> bool:
    """Whether the value of ``x`` can be looked at now (it is no tracer)."""
    return not isinstance(x, jax.core.Tracer)


def is_array(x: Any) -> bool:
    """Whether ``x`` is an array of JAX or NumPy, or a scalar of theirs."""
    return isinstance(x, (jax.Array, np.ndarray, np.generic))


def as_shape(shape: Any, name: str) -> Shape:
    """Return ``shape`` as a tuple of positive integers, or say why it is none."""
    try:
        if isinstance(shape, str) or any(isinstance(n, (bool, np.bool_)) for n in shape):
            raise TypeError
        out = tuple(operator.index(n) for n in shape)
    except TypeError:
        raise TypeError(
            f"{name} must be a tuple of integers such as (64,), got {shape!r}."
        ) from None
    if any(n <= 0 for n in out):
        raise ValueError(f"{name} must hold positive sizes only, got {out}.")
    return out


def check_positive(value: Any, name: str) -> None:
    """Refuse a number that is not finite and above zero; tracers pass."""
    if isinstance(value, (bool, str)) or (is_concrete(value) and not _positive(value)):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}.")


def _positive(value: Any) -> bool:
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return False
    return bool(np.all(np.isfinite(array) & (array > 0)))


def check_int(value: Any, name: str, minimum: int) -> None:
    """Refuse anything but an integer that is at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}.")


def check_trailing_shape(shape: Shape, event_shape: Shape, name: str) -> None:
    """Refuse a shape that does not end in ``event_shape``."""
    ndim = len(event_shape)
    if len(shape) < ndim or tuple(shape[len(shape) - ndim :]) != event_shape:
        raise ValueError(
            f"{name} must have the shape (..., {', '.join(map(str, event_shape))}), "
            f"the last axes being one event; got {tuple(shape)}."
        )


def check_float(x: Any, name: str) -> None:
    """Refuse integers, booleans and complex numbers where a density has a gradient."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise TypeError(
            f"{name} must hold floating-point numbers, got dtype {jnp.result_type(x)}; "
            f"convert it with {name}.astype(float)."
        )
