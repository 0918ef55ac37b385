"""What the objectives share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_score._checks import check_float
from numpyro_score._typing import Array
from numpyro_score.networks import energy_fn, score_fn


def batched_score(network: Any, batch: Array) -> Callable[..., Array]:
    """Return the score of one event of ``batch``, after a look at the batch itself."""
    _check_batch(batch)
    return score_fn(network, jnp.shape(batch)[1:])


def batched_energy(network: Any, batch: Array) -> Callable[..., Array]:
    """Return the energy of one event of ``batch``, after a look at the batch itself."""
    _check_batch(batch)
    return energy_fn(network, jnp.shape(batch)[1:])


def _check_batch(batch: Array) -> None:
    check_float(batch, "batch")
    if jnp.ndim(batch) < 2:
        raise ValueError(
            "batch must have the shape (n, *event_shape) with at least one event axis, got "
            f"{jnp.shape(batch)}; write numbers as events with batch.reshape(-1, 1)."
        )


def map_rows(function: Callable[..., Array], condition: Array | None, *rows: Any) -> Array:
    """Apply ``function(*row[, condition])`` to each row."""
    if condition is None:
        return jax.vmap(function)(*rows)
    num_rows = len(jax.tree.leaves(rows)[0])
    if len(condition) != num_rows:
        raise ValueError(
            f"condition must have one row per example: {num_rows} examples, "
            f"{len(condition)} conditions."
        )
    return jax.vmap(function)(*rows, condition)


def sum_event(x: Array) -> Array:
    """Sum over everything but the first axis."""
    return jnp.sum(x.reshape(len(x), -1), axis=1)
