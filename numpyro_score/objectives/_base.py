"""What the objectives share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_score._checks import check_float
from numpyro_score._typing import Array
from numpyro_score.networks import score_fn


def batched_score(network: Any, batch: Array) -> Callable[..., Array]:
    """Return the score of one event of ``batch``, after a look at the batch itself."""
    check_float(batch, "batch")
    if jnp.ndim(batch) < 2:
        raise ValueError(
            "batch must have the shape (n, *event_shape) with at least one event axis, got "
            f"{jnp.shape(batch)}; write numbers as events with batch.reshape(-1, 1)."
        )
    return score_fn(network, jnp.shape(batch)[1:])


def map_rows(function: Callable[..., Array], condition: Array | None, *rows: Array) -> Array:
    """Apply ``function(*row[, condition])`` to each row."""
    if condition is None:
        return jax.vmap(function)(*rows)
    if len(condition) != len(rows[0]):
        raise ValueError(
            f"condition must have one row per example: {len(rows[0])} examples, "
            f"{len(condition)} conditions."
        )
    return jax.vmap(function)(*rows, condition)
