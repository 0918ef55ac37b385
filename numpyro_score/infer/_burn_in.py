"""The way into the posterior, for kernels that are tuned only once they are there."""

from __future__ import annotations

from collections.abc import Callable

import jax

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer.mala import MALA


def burn_in(
    rng_key: Array,
    z: PyTree,
    potential_fn: Callable[[PyTree], Array],
    inverse_mass_matrix: Array | None,
    num_steps: int,
) -> tuple[PyTree, Array]:
    """Return where a warm-up of MALA leads one chain from ``z``, and the variances that it found.

    :param inverse_mass_matrix: variances ``(d,)`` to start with.
    """
    kernel = MALA(potential_fn=potential_fn, inverse_mass_matrix=inverse_mass_matrix)
    state = kernel.init(rng_key, num_steps, z)
    state = jax.lax.fori_loop(0, num_steps, lambda _, s: kernel.sample(s, (), {}), state)
    return state.z, state.adapt_state.inverse_mass_matrix
