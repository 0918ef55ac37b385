"""An energy with a constant that is learned with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.networks.adapters import as_network
from numpyro_score.networks.base import GaussianBase
from numpyro_score.networks.log_normalizer import LogNormalizerMLP


class NormalizedEnergy(eqx.Module):
    r"""The energy :math:`f(x) + c` with a trained number :math:`c`, which NCE takes to log Z.

    :class:`~numpyro_score.objectives.NoiseContrastiveEstimation` is least where
    :math:`e^{-f-c}` integrates to 1. After it, ``EnergyDistribution(network, event_shape,
    log_normalizer=0.0)`` is a normalized distribution, as is ``EnergyDistribution(network.energy,
    event_shape, log_normalizer=network.log_normalizer)``, up to the error of the estimate.

    A conditional energy has a normalizer Z(y) for each condition y. Give a function of y, such as
    :class:`LogNormalizerMLP`, and :math:`f(x, y) + c + h(y)` is learned in its place: log Z(y) for
    all conditions at once, so that y may be inferred.

    :param energy: anything that :func:`~numpyro_score.networks.as_network` accepts, one number out.
    :param log_normalizer: where c starts.
    :param of_condition: h, anything that ``as_network`` accepts; one condition in, one number out.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.networks import NormalizedEnergy
    >>> network = NormalizedEnergy(lambda x: 0.5 * jnp.sum(x**2), log_normalizer=2.0)
    >>> network(jnp.array([3.0, 4.0])).item()
    14.5
    """

    energy: Callable[..., Array]
    log_normalizer: Array
    of_condition: Callable[..., Array] | None

    def __init__(
        self, energy: Any, log_normalizer: float = 0.0, *, of_condition: Any = None
    ) -> None:
        self.energy = as_network(energy)
        self.log_normalizer = jnp.asarray(log_normalizer, float)
        self.of_condition = None if of_condition is None else as_network(of_condition)

    @property
    def base(self) -> GaussianBase | None:
        """The Gaussian base of the energy, where it has one."""
        return getattr(self.energy, "base", None)

    def __call__(self, x: Array, *rest: Array) -> Array:
        """Return the energy of one event, shape ``()``."""
        if self.of_condition is None:
            return self.energy(x, *rest) + self.log_normalizer
        if not rest:
            raise ValueError(
                "this NormalizedEnergy has a normalizer for each condition, and was given none."
            )
        constant = self.of_condition(rest[-1])
        if jnp.shape(constant) != ():
            raise ValueError(
                "of_condition must return one number for a condition, got the shape "
                f"{jnp.shape(constant)}."
            )
        return self.energy(x, *rest) + self.log_normalizer + constant

    def fit_base(
        self, data: Array, noise_scale: float = 0.0, condition: Array | None = None
    ) -> Self:
        """Return a copy whose parts are fitted to the data, where they have a ``fit_base``.

        The number c then starts at log Z of the Gaussian base.
        """
        based = self
        if isinstance(self.of_condition, LogNormalizerMLP):
            fitted = self.of_condition.fit_base(condition)
            based = eqx.tree_at(lambda network: network.of_condition, based, fitted)
        if not hasattr(self.energy, "fit_base"):
            return based
        energy = self.energy.fit_base(data, noise_scale, condition)
        based = eqx.tree_at(lambda network: network.energy, based, energy)
        base = getattr(energy, "base", None)
        if not isinstance(base, GaussianBase):
            return based
        return eqx.tree_at(lambda network: network.log_normalizer, based, base.log_normalizer)
