"""The antisymmetric part of the Jacobian of a score."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array

# What path="local" takes. ScoreMLPs of width 64, trained by denoising for 300 to 6,000 steps, had
# .003 to .012 in 16 dimensions, .017 to .036 in 8, .006 to .17 in 2. Means of MALA along the local
# path then differed from those along the anchored one, in standard deviations of the posterior, by
# .02 ± .02 at a curl of .012, .03 ± .04 at .033, .07 ± .03 at .064, .22 ± .06 at .097: by one or
# two times the curl. For a linear field with curvatures 1 and 10, in a metric that is not adapted
# to them, a curl of .03 gives two independent parameters a correlation of .055, which takes 300
# independent draws to see; with 1 and 100, of .20. In its own metric a linear field shows nothing.
MAX_CURL = 0.03


def jacobian_parts(
    score: Callable[[Array], Array], x: Array, probes: Array, event_ndim: int
) -> tuple[Array, Array]:
    """Return Σ ‖(J - Jᵀ)v‖² and Σ ‖(J + Jᵀ)v‖² over probes v, at each of the events x.

    They are ‖J - Jᵀ‖² and ‖J + Jᵀ‖² in Frobenius's norm where Σ v vᵀ = I, and estimates of them
    where this holds in expectation; Hutchinson (1990). One probe takes a forward and a backward
    derivative.

    :param score: ∇ log p of any number of events at once, each for itself.
    :param x: events ``(..., *event_shape)``.
    :param probes: vectors ``(m, ..., *event_shape)``, whose leading axes broadcast with those of x.
    :param event_ndim: number of axes of an event.
    """
    axes = tuple(range(x.ndim - event_ndim, x.ndim))
    _, pull = jax.vjp(score, x)

    def sizes(probe: Array) -> tuple[Array, Array]:
        probe = jnp.broadcast_to(probe, x.shape)
        forward, (backward,) = jax.jvp(score, (x,), (probe,))[1], pull(probe)
        return jnp.sum((forward - backward) ** 2, axes), jnp.sum((forward + backward) ** 2, axes)

    odd, even = jax.lax.map(sizes, probes)
    return odd.sum(0), even.sum(0)
