"""Layers that networks of vectors share."""

from __future__ import annotations

import equinox as eqx
import jax

from numpyro_score._checks import check_int
from numpyro_score._typing import Array


def hidden_layers(in_size: int, width: int, depth: int, key: Array) -> tuple[eqx.nn.Linear, ...]:
    """Return ``depth`` layers of size ``width``, the first on an input of size ``in_size``."""
    check_int(width, "width", 1)
    check_int(depth, "depth", 1)
    sizes = [in_size] + [width] * depth
    keys = jax.random.split(key, depth)
    return tuple(
        eqx.nn.Linear(fan_in, fan_out, key=k)
        for fan_in, fan_out, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
    )
