"""One key, or one for each of several chains."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.util import is_prng_key

from numpyro_score._typing import Array


def split_key(rng_key: Array) -> Array:
    """Return two keys in the place of one, or two rows of keys for a row of them."""
    if is_prng_key(rng_key):
        return jax.random.split(rng_key)
    return jnp.swapaxes(jax.vmap(jax.random.split)(rng_key), 0, 1)


def as_data(x: Any) -> Array:
    """Return the numbers of a typed random key, and any other array as it is."""
    x = jnp.asarray(x)
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
