"""A density tilted by an energy: q(x) exp(-g(x))."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax

from numpyro_score._typing import Array
from numpyro_score.networks._frozen import Constants
from numpyro_score.networks.adapters import as_network
from numpyro_score.networks.base import GaussianBase
from numpyro_score.networks.density import DensityNetwork
from numpyro_score.networks.from_denoiser import InnerProductEnergy
from numpyro_score.networks.images import ConvEnergy
from numpyro_score.networks.mlp import EnergyMLP
from numpyro_score.networks.normalized import NormalizedEnergy


class TiltedEnergy(eqx.Module):
    r"""The energy :math:`f(x) = -\log q(x) + g(x)`: an exponentially tilted density.

    The density q was trained before and is frozen here; the energy g is trained, by any objective,
    and mends what q got wrong. The Gaussian base of an :class:`EnergyMLP`, a :class:`ConvEnergy` or
    an :class:`InnerProductEnergy` is left out of g: q takes its place, and an untrained f is
    :math:`-\log q`. The tails are those of q as long as g grows less fast than they fall.

    :func:`~numpyro_score.distributions.estimate_log_normalizer` and Langevin runs start at draws
    of q, so that log Z is near 0 and its estimate has a small variance where the tilt is small.
    For noise-contrastive estimation with q as the noise give ``NormalizedEnergy`` of this.

    Sources: M. Arbel, L. Zhou & A. Gretton, Generalized energy based models, ICLR (2021); E.
    Nijkamp et al., MCMC should mix: learning energy-based model with neural transport latent space
    MCMC, ICLR (2022), for flows as the base.

    :param density: a :class:`DensityNetwork`; its arrays are not trained.
    :param network: g, anything that :func:`~numpyro_score.networks.as_network` accepts, one number
        out. A condition goes to both.
    :raises TypeError: ``density`` is no density network.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import EnergyMLP, FlowDensity, TiltedEnergy
    >>> flow = FlowDensity(2, width=8, key=jax.random.key(0))
    >>> tilted = TiltedEnergy(flow, EnergyMLP(2, width=8, key=jax.random.key(1)))
    >>> x = jnp.array([3.0, 4.0])
    >>> bool(jnp.allclose(tilted(x), flow(x)))
    True
    """

    density: Constants
    network: Callable[..., Array]

    def __init__(self, density: DensityNetwork, network: Any) -> None:
        if not isinstance(density, DensityNetwork):
            raise TypeError(
                "TiltedEnergy takes a density network (FlowDensity, from_distribution, ...) as its "
                f"base, got {type(density).__name__}, whose normalizer and draws are not known."
            )
        self.density = Constants(density)
        self.network = as_network(network)

    @property
    def reference(self) -> DensityNetwork:
        """The density q."""
        arrays, static = eqx.partition(self.density.tree, eqx.is_array)
        return eqx.combine(jax.lax.stop_gradient(arrays), static)

    @property
    def base(self) -> GaussianBase | None:
        """The Gaussian base of q, where it has one."""
        return getattr(self.density.tree, "base", None)

    def __call__(self, x: Array, *rest: Array) -> Array:
        """Return the energy of one event, shape ``()``."""
        tilt = self.network(x, *rest)
        gaussian = _own_base(self.network)
        if gaussian is not None:
            tilt = tilt - gaussian.energy(x.ravel())
        return self.reference(x, *rest) + tilt

    def fit_base(
        self, data: Array, noise_scale: float = 0.0, condition: Array | None = None
    ) -> Self:
        """Return a copy whose network g is fitted to the data, where it has a ``fit_base``.

        Of its Gaussian base the standardization of its inputs is what matters here. The constant of
        a ``NormalizedEnergy`` stays where it is: the Gaussian whose log Z it would be is left out.
        """
        if not hasattr(self.network, "fit_base"):
            return self
        network = self.network.fit_base(data, noise_scale, condition)
        if isinstance(self.network, NormalizedEnergy) and _own_base(network) is not None:
            constant = self.network.log_normalizer
            network = eqx.tree_at(lambda n: n.log_normalizer, network, constant)
        return eqx.tree_at(lambda tilted: tilted.network, self, network)


def _own_base(network: Any) -> GaussianBase | None:
    """Return the Gaussian whose energy is a summand of that of ``network``."""
    if isinstance(network, NormalizedEnergy):
        return _own_base(network.energy)
    # What the base of somebody else's network is to its energy is not known.
    has_summand = isinstance(network, (EnergyMLP, ConvEnergy, InnerProductEnergy))
    return network.base if has_summand else None
