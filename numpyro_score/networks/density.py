"""What is a normalized density by construction: an energy whose log Z is 0, with exact draws."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx

from numpyro_score._typing import Array, Shape


class DensityNetwork(eqx.Module):
    """Base class of the networks whose energy is -log q(x) of a density q that can be drawn from.

    Called with one event (and a condition, if there is one) it returns the energy, so that
    everything that takes an energy takes it. Since log Z is 0,
    :class:`~numpyro_score.objectives.MaximumLikelihood` may train it,
    :class:`~numpyro_score.distributions.DensityDistribution` makes it a distribution that draws,
    and :class:`TiltedEnergy` takes it as its base.

    A class of your own defines ``__call__`` and :meth:`sample`. That its energy is normalized is
    its promise, which ``estimate_log_normalizer(EnergyDistribution(network, event_shape), key)``
    checks.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import DensityNetwork
    >>> class Exponential(DensityNetwork):
    ...     log_rate: jax.Array
    ...     def __call__(self, x, condition=None):
    ...         return jnp.exp(self.log_rate) * x[0] - self.log_rate
    ...     def sample(self, rng_key, sample_shape=(), condition=None):
    ...         return jax.random.exponential(rng_key, (*sample_shape, 1)) / jnp.exp(self.log_rate)
    >>> Exponential(jnp.log(2.0)).sample(jax.random.key(0), (5,)).shape
    (5, 1)
    """

    is_bound: ClassVar[bool] = False
    """Whether the energy is only an upper bound of -log q(x), as that of a :class:`VAE` is."""

    @property
    def log_normalizer(self) -> float:
        """Log ∫ exp(-energy): 0."""
        return 0.0

    @abstractmethod
    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return -log q of one event, shape ``()``."""

    @abstractmethod
    def sample(
        self, rng_key: Array, sample_shape: Shape = (), condition: Array | None = None
    ) -> Array:
        """Draw from q.

        :param rng_key: a random key.
        :param sample_shape: shape of independent draws.
        :param condition: one condition, for all of them.
        :return: draws of shape ``sample_shape + event_shape``.
        """

    def loss(self, x: Array, rng_key: Array, condition: Array | None = None) -> Array:
        """Return what :class:`~numpyro_score.objectives.MaximumLikelihood` minimizes at one event.

        The energy; a class whose energy is a bound gives an estimate with fresh noise in its place.
        """
        return self(x) if condition is None else self(x, condition)
