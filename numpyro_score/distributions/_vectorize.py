"""Single-event functions applied to any leading shape."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array, Shape


def leading_shape(x: Array, event_ndim: int) -> Shape:
    """Return the axes of ``x`` before its event axes."""
    return jnp.shape(x)[: jnp.ndim(x) - event_ndim]


def map_events(fn: Callable[..., Array], *args: tuple[Array | None, int]) -> Array:
    """Map ``fn`` over the broadcast leading axes of its arguments.

    :param fn: a function of single events.
    :param args: pairs ``(array, event_ndim)``; an array that is None is left out of the call.
        An argument without leading axes is shared, not repeated, so that a network is
        evaluated as one batched matrix product.

    >>> import jax.numpy as jnp
    >>> map_events(jnp.dot, (jnp.ones((2, 1, 3)), 1), (jnp.ones((4, 3)), 1)).shape
    (2, 4)
    """
    present = [(x, ndim) for x, ndim in args if x is not None]
    shape = jnp.broadcast_shapes(*(leading_shape(x, ndim) for x, ndim in present))
    if shape == ():
        return fn(*(x for x, _ in present))

    flat: list[Array] = []
    in_axes: list[int | None] = []
    for x, ndim in present:
        lead, event = leading_shape(x, ndim), jnp.shape(x)[jnp.ndim(x) - ndim :]
        shared = lead == ()
        flat.append(x if shared else jnp.broadcast_to(x, shape + event).reshape((-1, *event)))
        in_axes.append(None if shared else 0)
    out = jax.vmap(fn, in_axes=tuple(in_axes))(*flat)
    return out.reshape(shape + out.shape[1:])
