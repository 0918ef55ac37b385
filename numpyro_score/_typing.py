"""Aliases for the arrays and functions that cross the borders of this package's rooms."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax

Array: TypeAlias = jax.Array
PyTree: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]
ScoreFn: TypeAlias = Callable[..., Array]
"""``score(x)`` or ``score(x, condition)``: ∇ₓ log p at one event, of the shape of ``x``."""
