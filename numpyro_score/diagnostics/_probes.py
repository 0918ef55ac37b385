"""Directions of derivatives: all of them, or random ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from numpyro_score._checks import check_int
from numpyro_score._typing import Array


def keys_of(n: int, num_probes: int | None, key: Array | None) -> Array:
    """Return a key for each of n rows; without ``num_probes`` they are not used."""
    if num_probes is not None:
        check_int(num_probes, "num_probes", 1)
        if key is None:
            raise ValueError("num_probes are random vectors, and need a key.")
    return jax.random.split(jax.random.key(0) if key is None else key, n)


def probes_of(x: Array, num_probes: int | None, key: Array) -> Array:
    """Return vectors v ``(m, *event_shape)`` with Σ v vᵀ = I; so in expectation, if random.

    :param x: one event.
    :param num_probes: how many rows of signs; None for the unit vectors.
    """
    if num_probes is None:
        return jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    signs = jax.random.rademacher(key, (num_probes, *x.shape), x.dtype)
    return signs / jnp.sqrt(jnp.asarray(num_probes, x.dtype))
