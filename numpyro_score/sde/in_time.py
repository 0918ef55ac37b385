"""A network of noise levels, over the time of a diffusion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.networks.adapters import as_network
from numpyro_score.sde.base import SDE, check_sde


class InTime(eqx.Module):
    r"""A network of all noise levels as one of all times of a diffusion.

    The variable :math:`x_t = \alpha x_0 + \sigma \varepsilon` is α times data with noise of level
    :math:`\sigma / \alpha`, so that one network serves every diffusion:

    .. math:: f(x, t) = f(x / \alpha, \sigma / \alpha), \qquad
              s(x, t) = s(x / \alpha, \sigma / \alpha) / \alpha

    for an energy or a score, told apart by the shape of their output.

    Source: T. Karras et al., Elucidating the design space of diffusion-based generative models,
    NeurIPS (2022), equation 3 and appendix C.

    :param network: ``network(x, noise_scale[, condition])``, such as
        :class:`~numpyro_score.networks.NoiseScoreMLP`, or anything else that
        :func:`~numpyro_score.networks.as_network` accepts.
    :param sde: a diffusion of this package.
    :raises TypeError: ``sde`` is none, or ``network``.

    Called with one event ``x``, a time ``t`` of shape ``()``, and a condition if there is one.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import NoiseScoreMLP
    >>> from numpyro_score.sde import VP, InTime
    >>> network = InTime(NoiseScoreMLP(2, width=8, key=jax.random.key(0)), VP())
    >>> bool(jnp.allclose(network(jnp.array([3.0, 4.0]), 0.3), jnp.array([-3.0, -4.0])))
    True
    """

    network: Callable[..., Array]
    sde: SDE = eqx.field(static=True)

    def __init__(self, network: Any, sde: SDE) -> None:
        check_sde(sde)
        self.network = as_network(network)
        self.sde = sde

    def __call__(self, x: Array, t: Array, condition: Array | None = None) -> Array:
        """Return the energy, shape ``()``, or the score, of the shape of ``x``."""
        if jnp.shape(t) != ():
            raise ValueError(
                f"InTime takes one time t of shape () per event, got {jnp.shape(t)}; evaluate a "
                "batch with jax.vmap(network)(x, t)."
            )
        mean_scale = self.sde.mean_scale(t)
        rest = () if condition is None else (condition,)
        out = self.network(x / mean_scale, self.sde.noise_scale(t), *rest)
        return out if jnp.shape(out) == () else out / mean_scale

    def fit_base(self, data: Any, noise_scale: float = 0.0, condition: Array | None = None) -> Self:
        """Return a copy with the network fitted to the data, where it has a ``fit_base``."""
        if not hasattr(self.network, "fit_base"):
            return self
        return type(self)(self.network.fit_base(data, noise_scale, condition), self.sde)
