"""Maximum likelihood of densities that are normalized by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array
from numpyro_score.networks import DensityNetwork
from numpyro_score.objectives._base import batched_energy, map_rows


@dataclass(frozen=True)
class MaximumLikelihood:
    r"""Maximum likelihood: lower the energy :math:`-\log q_\theta(x)` of the data.

    One loss per example: the energy of a density network, in nats. Of one whose energy is a bound
    (:class:`~numpyro_score.networks.VAE`) it is the bound with fresh noise.

    Use it for the families that are normalized by construction: flows, autoregressive densities,
    VAEs. It wastes nothing, and its value compares networks of any kind. Not for any other energy:
    its normalizer Z depends on the weights, and the energy of the data alone is least where it is
    low everywhere.

    A density of data that lie on a grid, or on a surface, has no bound; a ``noise_scale`` blurs
    them, and what is learned is the density of :math:`x + \sigma\varepsilon`, as by
    :class:`DenoisingScoreMatching`.

    Sources: R. A. Fisher, On the mathematical foundations of theoretical statistics, Philosophical
    Transactions of the Royal Society A 222 (1922); Y. Burda, R. Grosse & R. Salakhutdinov,
    Importance weighted autoencoders, ICLR (2016), for the bound.

    :param noise_scale: standard deviation :math:`\sigma` of normal noise on the data, in their
        units; 0 for none.
    :raises ValueError: ``noise_scale`` is neither 0 nor a finite number above it; at the call, a
        network that is no :class:`~numpyro_score.networks.DensityNetwork`.

    Called with ``(network, batch, key, condition=None)``: a density network, a batch of shape
    ``(n, *event_shape)``, a random key, and a condition of shape ``(n, ...)``. It returns shape
    ``(n,)``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import FlowDensity
    >>> from numpyro_score.objectives import MaximumLikelihood
    >>> network = FlowDensity(2, width=8, key=jax.random.key(0))
    >>> losses = MaximumLikelihood()(network, jnp.zeros((3, 2)), jax.random.key(1))
    >>> [round(loss, 4) for loss in losses.tolist()]  # log 2π
    [1.8379, 1.8379, 1.8379]
    """

    noise_scale: float = 0.0

    def __post_init__(self):
        if isinstance(self.noise_scale, bool) or self.noise_scale != 0:
            check_positive(self.noise_scale, "a noise_scale other than 0")
        object.__setattr__(self, "noise_scale", float(self.noise_scale))

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``."""
        energy = batched_energy(network, batch)
        _check_normalized(network)
        blur_key, loss_key = jax.random.split(key)
        if self.noise_scale:
            noise = jax.random.normal(blur_key, jnp.shape(batch), jnp.result_type(batch))
            batch = batch + self.noise_scale * noise

        def loss(x: Array, key: Array, *condition: Array) -> Array:
            jax.eval_shape(energy, x, *condition)  # says what is wrong with a shape
            return network.loss(x, key, *condition)

        return map_rows(loss, condition, batch, jax.random.split(loss_key, len(batch)))


def _check_normalized(network: Any) -> None:
    if not isinstance(network, DensityNetwork):
        raise ValueError(
            "maximum likelihood needs a density that is normalized by construction, and the "
            f"normalizer Z of a {type(network).__name__} is unknown and changes with its weights: "
            "the energy of the data alone would be low everywhere. Give a DensityNetwork "
            "(FlowDensity, CausalConvDensity, VAE, from_distribution), or learn this energy by "
            "NoiseContrastiveEstimation, ContrastiveDivergence or score matching."
        )
