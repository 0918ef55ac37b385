"""Energies made of networks that return an event: a denoiser or a score then has a density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array
from numpyro_score.networks._frozen import Constants
from numpyro_score.networks.adapters import as_network
from numpyro_score.networks.base import GaussianBase


class DenoiserEnergy(eqx.Module):
    r"""The energy :math:`f(x) = \|x - D(x)\|^2 / 2\sigma^2` of a denoiser D.

    Where D has a bounded output, the energy grows as that of a normal of scale :math:`\sigma`, and
    the density is proper. Its score is not :math:`(D(x) - x)/\sigma^2`, that of the denoiser
    itself, but its gradient, so train the energy as one.

    Source: T. Salimans & J. Ho, Should EBMs model the energy or the score?, ICLR workshop (2021),
    equation 7.

    :param denoiser: anything that :func:`~numpyro_score.networks.as_network` accepts; one event in,
        one event out.
    :param noise_scale: :math:`\sigma`, in units of the data.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.networks import DenoiserEnergy
    >>> DenoiserEnergy(lambda x: jnp.zeros(2), 0.5)(jnp.array([3.0, 4.0])).item()
    50.0
    """

    denoiser: Callable[..., Array]
    noise_scale: float = eqx.field(static=True)

    def __init__(self, denoiser: Any, noise_scale: float) -> None:
        check_positive(noise_scale, "noise_scale")
        self.denoiser = as_network(denoiser)
        self.noise_scale = float(noise_scale)

    def __call__(self, x: Array, *rest: Array) -> Array:
        """Return the energy of one event, shape ``()``."""
        return 0.5 * jnp.sum(((x - _same_shape(self.denoiser, x, rest)) / self.noise_scale) ** 2)


class InnerProductEnergy(eqx.Module):
    r"""The energy :math:`f(x) = -\tfrac12 (x - a) \cdot s(x)` of a network s that returns an event.

    For the score of a normal with mean a it is the energy of that normal, so that a score network
    is a good start. Where s points back to a from afar, as the score networks of this package do,
    the density is proper. Its score is not s, but its gradient, so train the energy as one.

    Source: Y. Du et al., Reduce, reuse, recycle: compositional generation with energy-based
    diffusion models and MCMC, ICML (2023), section 5.

    :param network: anything that :func:`~numpyro_score.networks.as_network` accepts; one event in,
        one event out.
    :param centre: a, an array of the shape of an event, or a number.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.networks import InnerProductEnergy
    >>> InnerProductEnergy(lambda x: -x)(jnp.array([3.0, 4.0])).item()
    12.5
    """

    network: Callable[..., Array]
    centre: Constants

    def __init__(self, network: Any, centre: Array | float = 0.0) -> None:
        self.network = as_network(network)
        self.centre = Constants(jnp.asarray(centre, float))

    @property
    def base(self) -> GaussianBase | None:
        """The Gaussian base of the network, where it has one."""
        return getattr(self.network, "base", None)

    def __call__(self, x: Array, *rest: Array) -> Array:
        """Return the energy of one event, shape ``()``."""
        return -0.5 * jnp.sum((x - self.centre.tree) * _same_shape(self.network, x, rest))

    def fit_base(
        self, data: Array, noise_scale: float = 0.0, condition: Array | None = None
    ) -> Self:
        """Return a copy with the network fitted to the data, where it has a ``fit_base``.

        The centre is then the mean of the data.
        """
        if not hasattr(self.network, "fit_base"):
            return self
        network = self.network.fit_base(data, noise_scale, condition)
        return type(self)(network, jnp.mean(data, axis=0))


def _same_shape(network: Callable[..., Array], x: Array, rest: tuple[Array, ...]) -> Array:
    out = network(x, *rest)
    if jnp.shape(out) != jnp.shape(x):
        raise ValueError(
            f"the network inside must return an array of the shape of an event, {jnp.shape(x)}; "
            f"got {jnp.shape(out)}."
        )
    return out
