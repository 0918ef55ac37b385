"""Single-event functions applied to any leading shape."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array, Shape


def leading_shape(x: Array, event_ndim: int) -> Shape:
    """The axes of ``x`` before its event axes."""
    return jnp.shape(x)[: jnp.ndim(x) - event_ndim]


def vectorize_events(
    fn: Callable[..., Array], *args: tuple[Array | None, int]
) -> Callable[[], Array]:
    """Return a thunk that maps ``fn`` over the broadcast leading axes of its arguments.

    :param fn: a function of single events.
    :param args: pairs ``(array, event_ndim)``; an array that is None is left out of the call.
        An argument without leading axes is shared, not repeated, so that a network is
        evaluated as one batched matrix product.
    """
    present = [(jnp.asarray(x), ndim) for x, ndim in args if x is not None]
    shape = jnp.broadcast_shapes(*(leading_shape(x, ndim) for x, ndim in present))
    if shape == ():
        return lambda: fn(*(x for x, _ in present))

    flat: list[Array] = []
    in_axes: list[int | None] = []
    for x, ndim in present:
        lead, event = leading_shape(x, ndim), jnp.shape(x)[jnp.ndim(x) - ndim :]
        if lead == ():
            flat.append(x)
            in_axes.append(None)
        else:
            flat.append(jnp.broadcast_to(x, shape + event).reshape((-1, *event)))
            in_axes.append(0)

    def mapped() -> Array:
        out = jax.vmap(fn, in_axes=tuple(in_axes))(*flat)
        return out.reshape(shape + out.shape[1:])

    return mapped
