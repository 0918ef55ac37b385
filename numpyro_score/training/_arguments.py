"""Checks of the arguments of a fit that are no data."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.training._data import Rows
from numpyro_score.training._loop import has_minimum

_NUM_CHUNKS = 50
_CHUNK_SIZES = (10, 500)


def as_key(rng_key: Any) -> Array:
    """Return one typed key from a typed or a legacy one."""
    dtype = getattr(rng_key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and rng_key.shape == ():
        return rng_key
    if dtype == np.uint32 and rng_key.shape == jax.random.key_data(jax.random.key(0)).shape:
        return jax.random.wrap_key_data(jnp.asarray(rng_key))
    got = type(rng_key).__name__ if dtype is None else f"{dtype} of shape {rng_key.shape}"
    raise TypeError(f"rng_key must be one random key such as jax.random.key(0), got {got}.")


def check_settings(
    num_steps: int,
    batch_size: int,
    ema_decay: float,
    validation_fraction: float,
    patience: int | None,
) -> None:
    """Refuse numbers out of their range."""
    check_int(num_steps, "num_steps", 1)
    check_int(batch_size, "batch_size", 1)
    for value, name in (
        (ema_decay, "ema_decay"),
        (validation_fraction, "validation_fraction"),
    ):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, got {value!r}.")
    if patience is not None:
        check_int(patience, "patience", 1)
        if validation_fraction == 0:
            raise ValueError(
                "patience needs a validation loss to watch: give a validation_fraction above 0, "
                "or patience=None."
            )


def pick_chunk_size(chunk_size: int | None, num_steps: int) -> int:
    """Return the number of steps per compiled call."""
    if chunk_size is None:
        return min(num_steps, int(np.clip(num_steps // _NUM_CHUNKS, *_CHUNK_SIZES)))
    check_int(chunk_size, "chunk_size", 1)
    return min(num_steps, chunk_size)


def check_objective(
    objective: Any, network: Any, rows: Rows, batch_size: int, patience: int | None
) -> None:
    """Refuse an objective that does not return one loss per example."""
    if not callable(objective):
        raise TypeError(
            "objective must be a function (network, batch, key[, condition]) such as "
            f"DenoisingScoreMatching(noise_scale=0.1), got {type(objective).__name__}."
        )
    if patience is not None and not has_minimum(objective):
        raise ValueError(
            f"patience needs a loss that is lower for better networks, and the value of "
            f"{type(objective).__name__} tells nothing; give patience=None."
        )
    batch = rows.take(jnp.arange(batch_size))
    condition = () if batch.condition is None else (batch.condition,)
    out = eqx.filter_eval_shape(objective, network, batch.data, jax.random.key(0), *condition)
    shape = getattr(out, "shape", None)
    if shape != (batch_size,) or not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(
            f"objective must return one loss per example, floating-point numbers of shape "
            f"({batch_size},) for a batch of {batch_size}; got {out}. Do not take the mean."
        )
