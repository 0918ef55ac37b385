"""What every learned distribution shares: shapes, pytree, support, condition, sampling."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform
from numpyro.distributions.util import validate_sample

from numpyro_score._checks import (
    as_shape,
    check_int,
    check_positive,
    check_trailing_shape,
    is_array,
    is_concrete,
)
from numpyro_score._typing import Array, PyTree, Shape
from numpyro_score.distributions._log_normalizer import as_log_normalizer
from numpyro_score.distributions._mode import Minimum, best_minimum, minimize_energy
from numpyro_score.distributions._support import (
    event_support,
    reference_density,
    standard_coordinates,
)
from numpyro_score.distributions._vectorize import leading_shape, map_events
from numpyro_score.networks import as_network
from numpyro_score.samplers.langevin import Langevin, tell_lost_draws


class LearnedDistribution(dist.Distribution):
    """Base of the distributions whose density is a network.

    A subclass says in :meth:`_event_log_prob` what the log density of one event is and in
    :meth:`_check_network` what its network must return; batch shapes, ``expand``, plates,
    conditions, the pytree and the support are looked after here.

    The network is split, once and here, into its arrays (pytree leaves, so that the
    distribution passes through ``jit``, ``vmap``, ``scan`` and ``tree.map``) and the static
    rest.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields: tuple[str, ...] = ("_arrays", "_support", "condition", "log_normalizer")
    pytree_aux_fields: tuple[str, ...] = ("_static", "condition_event_dim", "sampler")

    def __init__(
        self,
        network: PyTree,
        event_shape: Shape,
        *,
        condition: Array | None = None,
        condition_event_dim: int = 1,
        support: constraints.Constraint | None = None,
        log_normalizer: Array | float | None = None,
        sampler: Langevin | None = None,
        validate_args: bool | None = None,
    ) -> None:
        event_shape = as_shape(event_shape, "event_shape")
        check_int(condition_event_dim, "condition_event_dim", 0)
        if sampler is not None and not isinstance(sampler, Langevin):
            raise TypeError(
                "sampler must be a numpyro_score.samplers.Langevin or None, "
                f"got {type(sampler).__name__}."
            )
        self._arrays, self._static = eqx.partition(as_network(network), is_array)
        self._support = event_support(support, len(event_shape))
        self.condition = None if condition is None else jnp.asarray(condition)
        self.condition_event_dim = condition_event_dim
        self.sampler: Any = sampler
        batch_shape = self._condition_batch_shape()
        self.log_normalizer = as_log_normalizer(log_normalizer, batch_shape)
        self._check_network(event_shape)
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @property
    def network(self) -> PyTree:
        """The network: one event (and one condition) in, see the class for what comes out."""
        return eqx.combine(self._arrays, self._static)

    @property
    def normalized(self) -> bool:
        """Whether ``log_prob`` includes the normalizer Z; True only where it was given."""
        return self.log_normalizer is not None

    def with_log_normalizer(self, log_normalizer: Array | float) -> Self:
        """Return a normalized copy: ``log_prob`` then includes ``log_normalizer``.

        :param log_normalizer: log Z, of shape ``batch_shape`` or a number; see
            :func:`estimate_log_normalizer`.
        """
        normalized = copy.copy(self)
        normalized.log_normalizer = as_log_normalizer(log_normalizer, self.batch_shape)
        return normalized

    @property
    def has_rsample(self) -> bool:
        """False: draws are not differentiable functions of the network."""
        return False

    @abstractmethod
    def _check_network(self, event_shape: Shape) -> None:
        """Refuse a network whose output has the wrong shape."""

    @abstractmethod
    def _event_log_prob(self, x: Array, condition: Array | None = None) -> Array:
        """Log density of one event, up to the normalizer."""

    def _condition_batch_shape(self) -> Shape:
        if self.condition is None:
            return ()
        ndim = self.condition.ndim - self.condition_event_dim
        if ndim < 0:
            raise ValueError(
                f"condition must have at least condition_event_dim={self.condition_event_dim} "
                f"axes, got the shape {self.condition.shape}; a scalar condition needs "
                "condition_event_dim=0, or the shape (1,)."
            )
        return self.condition.shape[:ndim]

    def _output_shape(self, event_shape: Shape) -> Shape:
        """Shape of what the network returns for one event, found without evaluating it."""
        args = [jax.ShapeDtypeStruct(event_shape, jnp.result_type(float))]
        if self.condition is not None:
            shape = self.condition.shape[self.condition.ndim - self.condition_event_dim :]
            args.append(jax.ShapeDtypeStruct(shape, self.condition.dtype))
        # A network may hold functions among its leaves, which no argument of JAX may.
        out = jax.eval_shape(lambda *a: jnp.asarray(self.network(*a)), *args)
        return out.shape

    @validate_sample
    def log_prob(self, value: Array, intermediates: list[Any] | None = None) -> Array:
        """Log density, without Z unless ``normalized``.

        :param value: events of shape ``(..., *event_shape)``; leading axes broadcast with
            ``batch_shape``.
        :return: one number per event.
        :raises ValueError: where ``value`` does not end in ``event_shape``.
        """
        log_prob = self._map(self._event_log_prob, value)
        return log_prob if self.log_normalizer is None else log_prob - self.log_normalizer

    def score(self, value: Array) -> Array:
        """∇ₓ of :meth:`log_prob`, of shape ``broadcast(leading, batch_shape) + event_shape``.

        :param value: events of shape ``(..., *event_shape)``.
        """
        return self._map(jax.grad(self._event_log_prob), value)

    def _standard_coordinates(self) -> Transform:
        return standard_coordinates(self.network, self.support, self.event_shape)

    def _map(self, fn: Callable[..., Array], value: Array) -> Array:
        """Map ``fn`` of one event, and one condition where there is one, over ``value``."""
        value = jnp.asarray(value, dtype=jnp.result_type(value, float))
        check_trailing_shape(value.shape, self.event_shape, "value")
        lead = leading_shape(value, self.event_dim)
        try:
            jnp.broadcast_shapes(lead, self.batch_shape)
        except ValueError:
            raise ValueError(
                f"value has the leading shape {lead}, which does not broadcast with the "
                f"batch_shape {self.batch_shape} that the condition gives."
            ) from None
        return map_events(fn, (value, self.event_dim), (self.condition, self.condition_event_dim))

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draw by the ``sampler`` given at construction.

        :param key: a random key.
        :return: draws of shape ``sample_shape + batch_shape + event_shape``.
        :raises NotImplementedError: where no sampler was given. NumPyro's initialization
            strategies rely on this type and fall back to a uniform start.
        """
        if self.sampler is None:
            raise NotImplementedError(
                f"{type(self).__name__} has a density but no exact sampler. Draw from it with "
                "MCMC (numpyro_score.infer.MALA), or accept a short Langevin run at every call "
                "of `sample` with sampler=numpyro_score.samplers.Langevin()."
            )
        draws = _draw(self, key, tuple(sample_shape))
        if is_concrete(draws):
            tell_lost_draws(np.asarray(draws), self.event_dim)
        return draws

    def _map_events(self, fn: Callable[..., PyTree], key: Array, lead: Shape) -> PyTree:
        """Map ``fn(key, log_prob of one event[, condition])`` over ``lead + batch_shape``."""
        shape = lead + self.batch_shape
        keys = jax.random.split(key, shape)
        condition = self.condition
        if condition is not None:
            event = condition.shape[condition.ndim - self.condition_event_dim :]
            condition = jnp.broadcast_to(condition, shape + event)

        def one(key: Array, condition: Array | None) -> PyTree:
            rest = () if condition is None else (condition,)
            return fn(key, lambda x: self._event_log_prob(x, condition), *rest)

        for _ in shape:
            one = jax.vmap(one, in_axes=(0, None if condition is None else 0))
        return one(keys, condition)

    def mode(
        self, rng_key: Array, *, num_starts: int = 8, num_steps: int = 500, tol: float = 1e-3
    ) -> Array:
        """The most probable event y* = argmin_y F(x, y), the prediction of an energy model.

        LeCun et al. (2006), "A tutorial on energy-based learning", section 1. L-BFGS from
        several random starts in coordinates without constraint (without their Jacobian, so the
        mode is that of the density in ``y`` itself); the lowest energy wins.

        :param rng_key: a random key, for the starts.
        :param num_starts: how many starts, for each member of the batch.
        :param num_steps: the most steps of L-BFGS for each start.
        :param tol: a search ends where the root mean square of the gradient is below ``tol``; a
            mode that never got there is told by a warning.
        :return: an array of shape ``batch_shape + event_shape``.

        >>> import jax, jax.numpy as jnp
        >>> from numpyro_score.distributions import EnergyDistribution
        >>> energy = lambda y, x: 0.5 * jnp.sum((y - 2 * x) ** 2)
        >>> d = EnergyDistribution(energy, event_shape=(1,), condition=jnp.array([[1.0], [3.0]]))
        >>> jnp.allclose(d.mode(jax.random.key(0)), jnp.array([[2.0], [6.0]]), atol=1e-3).item()
        True
        """
        check_int(num_starts, "num_starts", 1)
        check_int(num_steps, "num_steps", 1)
        check_positive(tol, "tol")
        return best_minimum(_search(self, rng_key, num_starts, num_steps, tol), num_steps, tol)

    def _options(self) -> dict[str, Any]:
        """Return what the constructor takes beside the network and the shape of an event."""
        return {
            "condition": self.condition,
            "condition_event_dim": self.condition_event_dim,
            "support": self.support,
            "log_normalizer": self.log_normalizer,
            "sampler": self.sampler,
        }

    def _state(self) -> str:
        return "normalized" if self.normalized else "unnormalized"

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({type(self._static).__name__}, batch_shape="
            f"{self.batch_shape}, event_shape={self.event_shape}, {self._state()})"
        )


# Compiled once for all distributions of one network, whatever its parameters and conditions.


@partial(jax.jit, static_argnums=2)
def _draw(distribution: LearnedDistribution, key: Array, sample_shape: Shape) -> Array:
    sampler, transform = distribution.sampler, distribution._standard_coordinates()
    reference = reference_density(distribution.network, distribution.support)
    assert sampler is not None

    def draw(key: Array, log_prob: Callable[[Array], Array], *condition: Array) -> Array:
        start = None if reference is None else lambda key: reference.sample(key, (), *condition)
        return sampler.draw(key, log_prob, transform, distribution.event_shape, start)

    return distribution._map_events(draw, key, sample_shape)


@partial(jax.jit, static_argnums=(2, 3))
def _search(
    distribution: LearnedDistribution, key: Array, num_starts: int, num_steps: int, tol: float
) -> Minimum:
    transform, shape = distribution._standard_coordinates(), distribution.event_shape

    def search(key: Array, log_prob: Callable[[Array], Array], *condition: Array) -> Minimum:
        return minimize_energy(key, log_prob, transform, shape, num_steps, tol)

    return distribution._map_events(search, key, (num_starts,))
