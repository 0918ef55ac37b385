"""Checks of the arguments of a fit that are no data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.training._data import Rows
from numpyro_score.training._loop import has_minimum
from numpyro_score.training._sources import Source, row_bytes

_VALIDATION_FRACTION = 0.1
_NUM_CHUNKS, _LEAST_CHUNKS = 50, 10
_CHUNK_SIZES = (10, 500)
_CHUNK_BYTES = 2**26
_ROWS_PER_VALIDATION_ROW = 17


def as_key(rng_key: Any) -> Array:
    """Return one typed key from a typed or a legacy one."""
    dtype = getattr(rng_key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and rng_key.shape == ():
        return rng_key
    if dtype == np.uint32 and rng_key.shape == jax.random.key_data(jax.random.key(0)).shape:
        return jax.random.wrap_key_data(jnp.asarray(rng_key))
    got = type(rng_key).__name__ if dtype is None else f"{dtype} of shape {rng_key.shape}"
    raise TypeError(f"rng_key must be one random key such as jax.random.key(0), got {got}.")


def check_settings(num_steps: int, batch_size: int | None, ema_decay: float) -> None:
    """Refuse numbers out of their range."""
    check_int(num_steps, "num_steps", 1)
    if batch_size is not None:
        check_int(batch_size, "batch_size", 1)
    _check_share(ema_decay, "ema_decay")


def check_validation(
    validation_fraction: float | None,
    validation_data: Any,
    is_split: bool,
    patience: int | None,
    metrics: Mapping[str, Any],
) -> float:
    """Return the part of the rows to hold out, or say why nothing would be held out.

    :param is_split: whether the data can be split at all.
    """
    if validation_fraction is None:
        default = is_split and validation_data is None
        validation_fraction = _VALIDATION_FRACTION if default else 0.0
    _check_share(validation_fraction, "validation_fraction")
    if validation_fraction > 0 and validation_data is not None:
        raise ValueError("give either validation_data or a validation_fraction above 0, not both.")
    if validation_fraction > 0 and not is_split:
        raise ValueError(
            "the batches of an iterator are not split: hold rows out yourself, and give them as "
            "validation_data."
        )
    if patience is not None:
        check_int(patience, "patience", 1)
    for name, wants in (("patience", patience is not None), ("metrics", bool(metrics))):
        if wants and validation_fraction == 0 and validation_data is None:
            raise ValueError(
                f"{name} needs a validation loss to watch, or its rows: give validation_data, or "
                f"a validation_fraction above 0; or leave out {name}."
            )
    for name, metric in metrics.items():
        if not callable(metric):
            raise TypeError(
                f"metric {name!r} must be a function (network, data[, condition]) that returns a "
                f"number, got {type(metric).__name__}."
            )
    return validation_fraction


def _check_share(value: float, name: str) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value!r}.")


def pick_chunk_size(
    chunk_size: int | None, num_steps: int, source: Source, num_validation_rows: int
) -> int:
    """Return the number of steps per compiled call."""
    if chunk_size is not None:
        check_int(chunk_size, "chunk_size", 1)
        return min(num_steps, chunk_size)
    size = int(np.clip(num_steps // _NUM_CHUNKS, *_CHUNK_SIZES))
    # A validation row costs a third of a training row: a fiftieth of the time, or ten of them all.
    rare = _ROWS_PER_VALIDATION_ROW * num_validation_rows // source.batch_size
    size = max(size, min(rare, num_steps // _LEAST_CHUNKS))
    if source.rows is None:
        # The batches of a whole chunk are in memory.
        size = min(size, max(1, _CHUNK_BYTES // (source.batch_size * row_bytes(source.sample))))
    return min(num_steps, size)


def choose_sharding(devices: Any, batch_size: int) -> jax.sharding.Sharding | None:
    """Return how a batch lies on the devices; None for one device."""
    if devices is None:
        return None
    devices = list(devices)
    if not devices or not all(isinstance(device, jax.Device) for device in devices):
        raise TypeError(f"devices must be a list of devices such as jax.devices(), got {devices}.")
    if batch_size % len(devices):
        raise ValueError(
            f"batch_size must be a multiple of the number of devices, got {batch_size} rows for "
            f"{len(devices)} devices."
        )
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))


def check_objective(
    objective: Any, network: Any, rows: Rows, batch_size: int, patience: int | None
) -> Any:
    """Refuse an objective that does not return one loss per example; return its jaxpr."""
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
    trace = eqx.filter_make_jaxpr(objective)
    jaxpr, out, _ = trace(network, batch.data, jax.random.key(0), *condition)
    shape = getattr(out, "shape", None)
    if shape != (batch_size,) or not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(
            f"objective must return one loss per example, floating-point numbers of shape "
            f"({batch_size},) for a batch of {batch_size}; got {out}. Do not take the mean."
        )
    return jaxpr
