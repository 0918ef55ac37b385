"""Mixtures of densities: what any of them finds probable."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array, Shape
from numpyro_score.distributions._composed import ComposedDistribution, as_numbers
from numpyro_score.distributions._parts import is_normalized
from numpyro_score.distributions.base import LearnedDistribution
from numpyro_score.samplers import Langevin


class Mixture(ComposedDistribution):
    r"""Distribution with density :math:`\sum_k w_k\, p_k(x)`.

    A weight is a share of probability, which the density of a component tells only where it is
    normalized: exp(-f) of an unknown Z would count Z times too much. So components with an unknown
    normalizer are refused, a score's above all, whose density is a line integral from an arbitrary
    anchor. Two ways out: normalize them, by :func:`estimate_log_normalizer` and
    :meth:`LearnedDistribution.with_log_normalizer`, or give ``log_weights`` of the densities as
    they are, where you know how they compare.

    The mixture is normalized where its components are. Draws come from the components, each as
    often as its weight says; those of a component that has only a density by ``sampler``.

    Source: G. J. McLachlan & D. Peel, Finite mixture models, Wiley (2000), section 1.4.

    :param distributions: components, learned or of NumPyro, of one event shape and support; batch
        shapes broadcast.
    :param weights: :math:`w_k`, probabilities that sum to 1; by default all the same.
    :param log_weights: in their place, the logarithm of what the density of each component is
        multiplied by, as ``log_prob`` has it; of any sum. Of normalized components they are
        normalized, too. Otherwise the mixture is unnormalized.
    :param log_normalizer: log Z of such an unnormalized mixture, where you know it.
    :param sampler: :class:`numpyro_score.samplers.Langevin` for components that cannot be drawn
        from; of an unnormalized mixture it draws as a whole.
    :raises TypeError: a component is no distribution.
    :raises ValueError: components of other shapes or supports, or that are unnormalized; weights
        that are no probabilities.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_score.distributions import EnergyDistribution, Mixture
    >>> learned = EnergyDistribution(lambda x: 0.5 * x**2, (), log_normalizer=0.9189385)
    >>> d = Mixture([learned, dist.Normal(4.0, 1.0)], weights=[0.25, 0.75])
    >>> d.normalized, round(d.log_prob(jnp.array(0.0)).item(), 3)
    (True, -2.304)
    """

    _word = "component"

    def __init__(
        self,
        distributions: Sequence[dist.Distribution],
        weights: Sequence[Array | float] | Array | None = None,
        *,
        log_weights: Sequence[Array | float] | Array | None = None,
        log_normalizer: Array | float | None = None,
        sampler: Langevin | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if isinstance(distributions, dist.Distribution):
            raise TypeError("distributions must be a list of components, got one distribution.")
        components = list(distributions)
        if weights is not None and log_weights is not None:
            raise ValueError("give weights or log_weights, not both.")
        if log_weights is None:
            logs = jnp.log(_as_probabilities(weights, len(components)))
        else:
            logs = as_numbers(log_weights, len(components), "log_weights")
        super().__init__(
            components, logs, log_normalizer=None, sampler=sampler, validate_args=validate_args
        )
        unknown = [i for i, d in enumerate(components) if not is_normalized(d)]
        if unknown and log_weights is None:
            names = [f"number {i}, {type(components[i]).__name__}" for i in unknown]
            raise ValueError(
                f"components of a mixture must be normalized, and {'; '.join(names)} is not: its "
                "weight would be multiplied by its unknown normalizer Z. Give it one, "
                "d.with_log_normalizer(estimate_log_normalizer(d, key).log_normalizer), or give "
                "log_weights of the densities as they are."
            )
        if not unknown:
            self.weights = logs - jax.nn.logsumexp(logs)
        if log_normalizer is not None:
            self.log_normalizer = self.with_log_normalizer(log_normalizer).log_normalizer

    @property
    def components(self) -> tuple[dist.Distribution, ...]:
        """The distributions whose densities are added."""
        return self._members

    @property
    def log_weights(self) -> Array:
        """Logarithms of what the density of each component is multiplied by."""
        return self.weights

    @property
    def normalized(self) -> bool:
        """Whether ``log_prob`` includes the normalizer: that of all components, or one given."""
        return self.log_normalizer is not None or all(map(is_normalized, self._members))

    def with_log_normalizer(self, log_normalizer: Array | float) -> Self:
        """Return a normalized copy of a mixture of unnormalized components.

        :raises ValueError: the components, and so the mixture, are normalized.
        """
        if all(map(is_normalized, self._members)):
            raise ValueError("a Mixture of normalized components is normalized.")
        return super().with_log_normalizer(log_normalizer)

    def _terms(self, log_probs: list[Array]) -> Array:
        """Return the logarithms of the terms of the sum, along a new first axis."""
        shape = jnp.broadcast_shapes(*(value.shape for value in log_probs))
        terms = [
            w + jnp.broadcast_to(value, shape)
            for w, value in zip(self.weights, log_probs, strict=True)
        ]
        return jnp.stack(terms)

    def _combine(self, log_probs: list[Array]) -> Array:
        return jax.nn.logsumexp(self._terms(log_probs), axis=0)

    def component_probabilities(self, value: Array) -> Array:
        """The probability of each component given an event, along a new last axis.

        :param value: events of shape ``(..., *event_shape)``.
        """
        value = self._as_events(value)
        terms = self._terms([member.log_prob(value) for member in self._members])
        return jnp.moveaxis(jax.nn.softmax(terms, axis=0), 0, -1)

    def score(self, value: Array) -> Array:
        """The scores of the components, weighted by :meth:`component_probabilities`.

        :param value: events of shape ``(..., *event_shape)``.
        """
        shares = jnp.moveaxis(self.component_probabilities(value), -1, 0)
        event = (...,) + (None,) * self.event_dim
        return sum(
            share[event] * score
            for share, score in zip(shares, self._member_scores(value), strict=True)
        )

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draw a component by its weight, and an event from it.

        :param key: a random key.
        :return: draws of shape ``sample_shape + batch_shape + event_shape``.
        :raises NotImplementedError: a component has no sampler, and none was given.
        """
        if not all(map(is_normalized, self._members)):
            # The share of each component is unknown.
            return super().sample(key, sample_shape)
        which_key, *keys = jax.random.split(key, 1 + len(self._members))
        shape = tuple(sample_shape) + self.batch_shape
        which = jax.random.categorical(which_key, self.weights, shape=shape)
        which = which.reshape(shape + (1,) * self.event_dim)
        draws = jnp.zeros(shape + self.event_shape)
        for k, (key, member) in enumerate(zip(keys, self._members, strict=True)):
            draw = self._with_sampler(member).expand(self.batch_shape).sample(key, sample_shape)
            draws = jnp.where(which == k, draw, draws)
        return draws

    def _with_sampler(self, member: dist.Distribution) -> Any:
        """Return a component that has the sampler of the mixture, where it has none."""
        if self.sampler and isinstance(member, LearnedDistribution) and not member.sampler:
            member = copy.copy(member)
            member.sampler = self.sampler
        return member

    def _options(self) -> dict[str, Any]:
        options = super()._options()
        return {"log_weights": options.pop("weights")} | options


def _as_probabilities(weights: Any, num: int) -> Array:
    if weights is None:
        return jnp.full(num, 1 / max(num, 1))
    array = as_numbers(weights, num, "weights")
    if is_concrete(array):
        values = np.asarray(array, float)
        if not (values > 0).all() or abs(values.sum() - 1) > 1e-3:
            raise ValueError(
                f"weights of a mixture must be above 0 and sum to 1, got {values}. For weights of "
                "another sum give log_weights."
            )
    return array
