"""What products and mixtures share: several distributions of one event, and how they are called."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.transforms import Transform, biject_to
from numpyro.distributions.util import validate_sample

from numpyro_score._checks import check_trailing_shape, is_concrete
from numpyro_score._typing import Array, PyTree, Shape
from numpyro_score.distributions._log_normalizer import as_log_normalizer
from numpyro_score.distributions._parts import check_members, is_normalized
from numpyro_score.distributions._vectorize import leading_shape
from numpyro_score.distributions.base import LearnedDistribution
from numpyro_score.samplers import Langevin


class ComposedDistribution(LearnedDistribution):
    """Base of the distributions that are made of others, of which one at least may be learned.

    A subclass says in :meth:`_combine` how the log densities of its members make one. Whole batches
    go to the members as they are, so that each keeps its own derivatives.
    """

    pytree_data_fields = ("_members", "weights")
    _word: ClassVar[str] = "member"
    _samplers: ClassVar[tuple[type, ...]] = (Langevin,)

    def __init__(
        self,
        members: Sequence[dist.Distribution],
        weights: Array,
        *,
        log_normalizer: Array | float | None,
        sampler: Any,
        validate_args: bool | None,
    ) -> None:
        event_shape, batch_shape, support = check_members(members, self._word)
        if sampler is not None and not isinstance(sampler, self._samplers):
            names = " or ".join(f"numpyro_score.samplers.{cls.__name__}" for cls in self._samplers)
            raise TypeError(f"sampler must be a {names} or None, got {type(sampler).__name__}.")
        self._members = tuple(members)
        self.weights = weights
        self._support = support
        self._arrays = self._static = self.condition = None
        self.condition_event_dim = 0
        self.sampler = sampler
        self.log_normalizer = as_log_normalizer(log_normalizer, batch_shape)
        dist.Distribution.__init__(self, batch_shape, event_shape, validate_args=validate_args)

    @property
    def network(self) -> None:
        """None: the networks are those of what it is made of."""
        return None

    @abstractmethod
    def _combine(self, log_probs: list[Array]) -> Array:
        """Return the log density from those of the members, without its normalizer."""

    def _check_network(self, event_shape: Shape) -> None:
        """Networks were checked by the members."""

    def _event_log_prob(self, x: Array, condition: Array | None = None) -> Array:
        return self._combine([member.log_prob(x) for member in self._members])

    @validate_sample
    def log_prob(self, value: Array, intermediates: list[Any] | None = None) -> Array:
        """Log density, without Z unless ``normalized``.

        :param value: events of shape ``(..., *event_shape)``; leading axes broadcast with
            ``batch_shape``.
        :return: one number per event.
        :raises ValueError: where ``value`` does not end in ``event_shape``.
        """
        log_prob = self._event_log_prob(self._as_events(value))
        return log_prob if self.log_normalizer is None else log_prob - self.log_normalizer

    def _as_events(self, value: Array) -> Array:
        value = jnp.asarray(value, dtype=jnp.result_type(value, float))
        check_trailing_shape(value.shape, self.event_shape, "value")
        lead = leading_shape(value, self.event_dim)
        try:
            jnp.broadcast_shapes(lead, self.batch_shape)
        except ValueError:
            raise ValueError(
                f"value has the leading shape {lead}, which does not broadcast with the "
                f"batch_shape {self.batch_shape}."
            ) from None
        return value

    def _member_scores(self, value: Array) -> list[Array]:
        """Return the score of each member, of shape ``broadcast(lead, batch_shape) + event``."""
        value = self._as_events(value)
        lead = jnp.broadcast_shapes(leading_shape(value, self.event_dim), self.batch_shape)
        value = jnp.broadcast_to(value, lead + self.event_shape)
        return [
            member.score(value)
            if isinstance(member, LearnedDistribution)
            else jax.grad(lambda x, d=member: jnp.sum(d.log_prob(x)))(value)
            for member in self._members
        ]

    def _standard_coordinates(self) -> Transform:
        for member in self._members:
            if isinstance(member, LearnedDistribution):
                return member._standard_coordinates()
        return biject_to(self.support)

    def _map_events(self, fn: Callable[..., PyTree], key: Array, lead: Shape) -> PyTree:
        """Map ``fn(key, log_prob of one event)`` over ``lead + batch_shape``."""
        shape = lead + self.batch_shape
        keys = jax.random.split(key, shape)
        index = jnp.arange(prod(self.batch_shape)).reshape(self.batch_shape)

        def one(key: Array, index: Array) -> PyTree:
            return fn(key, lambda x: self._log_prob_of(x, index, self.batch_shape))

        for _ in shape:
            one = jax.vmap(one)
        return one(keys, jnp.broadcast_to(index, shape))

    def _log_prob_of(self, x: Array, index: Array, batch_shape: Shape) -> Array:
        """Return the log density of one event under one of a batch, without the normalizer."""
        return self._combine([log_prob_of(d, x, index, batch_shape) for d in self._members])

    def _options(self) -> dict[str, Any]:
        """Return what the constructor takes beside the members."""
        return {
            "weights": self.weights,
            "log_normalizer": self.log_normalizer,
            "sampler": self.sampler,
        }

    def __repr__(self) -> str:
        names = ", ".join(_name(member) for member in self._members)
        return (
            f"{type(self).__name__}([{names}], batch_shape={self.batch_shape}, "
            f"event_shape={self.event_shape}, {self._state()})"
        )


def log_prob_of(member: dist.Distribution, x: Array, index: Array, batch_shape: Shape) -> Array:
    """Return the log density of one event under the member of a batch that stands at ``index``.

    A distribution of NumPyro with a batch is evaluated as a whole.
    """
    if not isinstance(member, LearnedDistribution):
        return jnp.broadcast_to(member.log_prob(x), batch_shape).reshape(-1)[index]

    def at(array: Array, event_ndim: int = 0) -> Array:
        event = array.shape[array.ndim - event_ndim :]
        return jnp.broadcast_to(array, batch_shape + event).reshape(-1, *event)[index]

    if isinstance(member, ComposedDistribution):
        log_prob = member._log_prob_of(x, index, batch_shape)
    elif member.condition is None:
        log_prob = member._event_log_prob(x)
    else:
        log_prob = member._event_log_prob(x, at(member.condition, member.condition_event_dim))
    if member.log_normalizer is None:
        return log_prob
    return log_prob - at(member.log_normalizer)


def _name(member: dist.Distribution) -> str:
    while isinstance(member, (dist.Independent, dist.ExpandedDistribution)):
        member = member.base_dist
    return type(member).__name__ + ("" if is_normalized(member) else "*")


def as_numbers(values: Any, num: int, name: str) -> Array:
    """Return finite numbers, one for each of ``num`` distributions, as an array.

    :param name: what to call them.
    """
    numbers = list(values)
    if len(numbers) != num or any(jnp.shape(number) != () for number in numbers):
        raise ValueError(
            f"{name} must be one number for each of the {num} distributions, got the shapes "
            f"{[jnp.shape(number) for number in numbers]}."
        )
    array = concretely(lambda *ws: jnp.stack([jnp.asarray(w, float) for w in ws]), *numbers)
    if is_concrete(array) and not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array}.")
    return array


def concretely(fn: Callable[..., Any], *args: Any) -> Any:
    """Return ``fn(*args)``, also under ``jit`` as numbers that can be looked at, if these are."""
    if not all(map(is_concrete, args)):
        return fn(*args)
    with jax.ensure_compile_time_eval():
        return fn(*args)
