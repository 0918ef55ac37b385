"""One key, or one for each of several chains."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from numpyro.util import is_prng_key

from numpyro_score._typing import Array


def split_key(rng_key: Array) -> Array:
    """Return two keys in the place of one, or two rows of keys for a row of them."""
    if is_prng_key(rng_key):
        return jax.random.split(rng_key)
    return jnp.swapaxes(jax.vmap(jax.random.split)(rng_key), 0, 1)
