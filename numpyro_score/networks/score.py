"""From an energy to its score, and one way to call either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_score._checks import as_shape
from numpyro_score._typing import Array, ScoreFn, Shape
from numpyro_score.networks.adapters import as_network


class EnergyScore(eqx.Module):
    """The score -∇ₓ f of an energy f; made by :func:`as_score`."""

    energy: Callable[..., Array]

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return the score at one event, of the shape of ``x``."""
        args = (x,) if condition is None else (x, condition)
        out = jax.eval_shape(self.energy, *args)
        if getattr(out, "shape", None) != ():
            raise TypeError(
                f"as_score takes an energy, whose output has the shape (); got an output of "
                f"{out} at x of shape {jnp.shape(x)}. A network whose output has the shape of "
                "x is a score already: use it as it is."
            )
        return -jax.grad(self.energy)(*args)


class _Score(eqx.Module):
    network: Callable[..., Array]
    event_shape: Shape = eqx.field(static=True)

    def __call__(self, x: Array, *rest: Array) -> Array:
        _check_event(x, self.event_shape, "score")
        out = jax.eval_shape(self.network, x, *rest)
        shape = getattr(out, "shape", None)
        if shape == ():
            return -jax.grad(self.network)(x, *rest)
        if shape == self.event_shape:
            return self.network(x, *rest)
        raise ValueError(
            f"a network must return () for an energy or {self.event_shape} for a score at an "
            f"event of shape {self.event_shape}; got {out if shape is None else shape}."
        )


class _Energy(eqx.Module):
    network: Callable[..., Array]
    event_shape: Shape = eqx.field(static=True)

    def __call__(self, x: Array, *rest: Array) -> Array:
        _check_event(x, self.event_shape, "energy")
        out = jax.eval_shape(self.network, x, *rest)
        shape = getattr(out, "shape", None)
        if shape == ():
            return self.network(x, *rest)
        hint = " That is the shape of a score." if shape == self.event_shape else ""
        raise ValueError(
            f"this takes an energy, which returns () at an event of shape {self.event_shape}; got "
            f"{out if shape is None else shape}.{hint}"
        )


def _check_event(x: Array, event_shape: Shape, name: str) -> None:
    if jnp.shape(x) != event_shape:
        raise ValueError(
            f"the {name} takes one event of shape {event_shape}, got {jnp.shape(x)}; "
            "evaluate a batch with jax.vmap."
        )


def as_score(energy: Any) -> EnergyScore:
    """Return the score -∇ₓ energy(x) as an Equinox module.

    :param energy: anything that :func:`as_network` accepts; one event in, shape ``()`` out.
    :return: a module ``score(x)`` or ``score(x, condition)`` that returns the shape of ``x``.
    :raises TypeError: at the call, if the output of ``energy`` is not of shape ``()``.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.networks import as_score
    >>> score = as_score(lambda x: 0.5 * jnp.sum(x**2))
    >>> score(jnp.array([3.0, 4.0])).tolist()
    [-3.0, -4.0]
    """
    return EnergyScore(as_network(energy))


def score_fn(network: Any, event_shape: Shape) -> ScoreFn:
    """Return the score of an energy or a score network, told apart by the output's shape.

    :param network: anything that :func:`as_network` accepts. A network that returns the shape
        ``()`` is an energy, one that returns ``event_shape`` a score.
    :param event_shape: shape of one event, of rank 1 or more.
    :return: ``score(x, *rest)`` for one event, of the shape ``event_shape``; an Equinox module, so
        a pytree. What follows ``x``, a noise level or a condition, goes on to the network.
    :raises ValueError: ``event_shape`` is ``()``, which an energy and a score share; at the
        call, if ``x`` or the output has another shape.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.networks import score_fn
    >>> score_fn(lambda x: 0.5 * jnp.sum(x**2), (2,))(jnp.array([3.0, 4.0])).tolist()
    [-3.0, -4.0]
    >>> score_fn(lambda x: -x, (2,))(jnp.array([3.0, 4.0])).tolist()
    [-3.0, -4.0]
    """
    shape = as_shape(event_shape, "event_shape")
    if not shape:
        raise ValueError(
            "event_shape must have at least one axis, got (): an energy and a score of a scalar "
            "look alike; give events of shape (1,)."
        )
    return _Score(as_network(network), shape)


def energy_fn(network: Any, event_shape: Shape) -> Callable[..., Array]:
    """Return an energy network that says what is wrong with its input or output.

    :param network: anything that :func:`as_network` accepts; one event in, shape ``()`` out.
    :param event_shape: shape of one event.
    :return: ``energy(x, *rest)`` for one event, of the shape ``()``; an Equinox module.
    :raises ValueError: at the call, if ``x`` or the output has another shape.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.networks import energy_fn
    >>> energy_fn(lambda x: 0.5 * jnp.sum(x**2), (2,))(jnp.array([3.0, 4.0])).item()
    12.5
    """
    return _Energy(as_network(network), as_shape(event_shape, "event_shape"))
