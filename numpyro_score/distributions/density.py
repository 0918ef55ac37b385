"""A density that is normalized by construction, and drawn from exactly."""

from __future__ import annotations

from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from numpyro_score._typing import Array, Shape
from numpyro_score.distributions.energy import EnergyDistribution
from numpyro_score.networks import DensityNetwork


class DensityDistribution(EnergyDistribution):
    """The distribution of a density network: a flow, an autoregressive density, a VAE.

    ``log_prob`` includes the normalizer and ``sample`` is exact, so that it may be anything in a
    model: a prior; a likelihood whose condition or parameters depend on a latent site, which is not
    doubly intractable; the ``noise`` of
    :class:`~numpyro_score.objectives.NoiseContrastiveEstimation`, also as
    ``lambda c: DensityDistribution(network, event_shape, condition=c)``.

    Where the energy of the network is a bound (``network.is_bound``, as of a
    :class:`~numpyro_score.networks.VAE`), so is ``log_prob``, while draws are those of the density
    itself; the ``repr`` says so. Noise-contrastive estimation then learns the density of the data
    less the gap of the bound.

    :param network: a :class:`~numpyro_score.networks.DensityNetwork`.
    :param event_shape: shape of one event.
    :param condition: conditions of shape ``batch_shape + condition_event``; see
        :class:`EnergyDistribution`.
    :param condition_event_dim: how many trailing axes of ``condition`` are one condition.
    :param support: the constraint that its events obey, where they are not any real numbers.
    :raises TypeError: the network is no density network.
    :raises ValueError: shapes that do not fit.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.distributions import DensityDistribution
    >>> from numpyro_score.networks import FlowDensity
    >>> d = DensityDistribution(FlowDensity(2, width=8, key=jax.random.key(0)), (2,))
    >>> d.sample(jax.random.key(1), (3,)).shape, d.normalized
    ((3, 2), True)
    """

    def __init__(
        self,
        network: DensityNetwork,
        event_shape: Shape,
        *,
        condition: Array | None = None,
        condition_event_dim: int = 1,
        support: constraints.Constraint | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(network, DensityNetwork):
            raise TypeError(
                "DensityDistribution takes a density network (FlowDensity, CausalConvDensity, VAE, "
                f"from_distribution), got {type(network).__name__}; for any other energy use "
                "EnergyDistribution."
            )
        super().__init__(
            network,
            event_shape,
            condition=condition,
            condition_event_dim=condition_event_dim,
            support=support,
            log_normalizer=0.0,
            validate_args=validate_args,
        )

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draw from the density itself.

        :param key: a random key.
        :return: draws of shape ``sample_shape + batch_shape + event_shape``.
        """
        return _draw(self, key, tuple(sample_shape))

    def with_log_normalizer(self, log_normalizer: Array | float) -> Self:
        """Refused: the density has its normalizer.

        :raises ValueError: always; the message says what to do with a bound.
        """
        raise ValueError(
            "a DensityDistribution is normalized by construction. To normalize a bound, take "
            "EnergyDistribution(network, event_shape, log_normalizer=...)."
        )

    def _options(self) -> dict[str, Any]:
        options = super()._options()
        return {name: options[name] for name in ("condition", "condition_event_dim", "support")}

    def _state(self) -> str:
        is_bound = self._static.is_bound
        return "log_prob is a lower bound" if is_bound else super()._state()


@partial(jax.jit, static_argnums=2)
def _draw(distribution: DensityDistribution, key: Array, sample_shape: Shape) -> Array:
    network = distribution.network

    def draw(key: Array, log_prob: Any, *condition: Array) -> Array:
        return jnp.asarray(network.sample(key, (), *condition))

    return distribution._map_events(draw, key, sample_shape)
