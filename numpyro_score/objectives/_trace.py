"""The trace of a derivative, from its products with random vectors.

Hutchinson (1990), "A stochastic estimator of the trace of the influence matrix": E[vᵀ A v] = tr A
for any v with E[v vᵀ] = I.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array, Shape

Probe: TypeAlias = Literal["rademacher", "normal", "sphere"]


def check_probe(probe: str, name: str) -> None:
    """Refuse a distribution of probes that there is not."""
    if probe not in get_args(Probe):
        known = ", ".join(repr(p) for p in get_args(Probe))
        raise ValueError(f"{name} must be one of {known}, got {probe!r}.")


def draw_probes(probe: Probe, key: Array, shape: Shape, event_ndim: int, dtype: jnp.dtype) -> Array:
    """Draw vectors v with E[v vᵀ] = I; the last ``event_ndim`` axes of ``shape`` are one vector."""
    if probe == "rademacher":
        return jax.random.rademacher(key, shape, dtype)
    v = jax.random.normal(key, shape, dtype)
    if probe == "normal":
        return v
    axes = tuple(range(len(shape) - event_ndim, len(shape)))
    size = 1
    for axis in axes:
        size *= shape[axis]
    # On the sphere of radius √d.
    return v * jnp.sqrt(size / jnp.sum(v**2, axes, keepdims=True))


def value_and_curvatures(
    score: Callable[[Array], Array], x: Array, probes: Array
) -> tuple[Array, Array]:
    """Return s(x), and vᵀ ∇s(x) v for each of the probes, shape ``(num_probes,)``."""
    value, derivative = jax.linearize(score, x)
    return value, jax.vmap(lambda v: jnp.sum(derivative(v) * v))(probes)
