"""The log normalizer that a user gives."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array, Shape


def as_log_normalizer(value: Array | float | None, batch_shape: Shape) -> Array | None:
    """Return log Z as an array, or say why it is none; None where there is none."""
    if value is None:
        return None
    if jnp.iscomplexobj(value):
        raise TypeError("log_normalizer must be real, got complex numbers.")
    array = jnp.asarray(value, dtype=jnp.result_type(float))
    if is_concrete(array) and not np.isfinite(array).all():
        raise ValueError(f"log_normalizer must be finite, got {value!r}.")
    try:
        fits = jnp.broadcast_shapes(array.shape, batch_shape) == batch_shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"log_normalizer must be a number for each member of the batch_shape {batch_shape}, "
            f"got the shape {array.shape}."
        )
    return array
