"""Noise-contrastive estimation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.networks import (
    DensityNetwork,
    GaussianBase,
    NormalizedEnergy,
    TiltedEnergy,
)
from numpyro_score.objectives._base import batched_energy, map_rows


@dataclass(frozen=True)
class NoiseContrastiveEstimation:
    r"""Noise-contrastive estimation: learn an energy by telling data from noise.

    With :math:`G(u) = -f_\theta(u) - \log q(u)` for the density q of the noise, an example
    :math:`x` and :math:`\nu` draws :math:`y_j \sim q`, the loss is

    .. math:: -\log \operatorname{sigmoid}(G(x) - \log\nu)
              - \sum_j \log \operatorname{sigmoid}(\log\nu - G(y_j))

    or, with ``ranking``,

    .. math:: -G(x) + \log \Big( e^{G(x)} + \sum_j e^{G(y_j)} \Big)

    The first is least where :math:`e^{-f}` is the density of the data with its normalizer, so
    that the network needs a free constant:
    :class:`~numpyro_score.networks.NormalizedEnergy` adds one, and after the fit it is log Z. The
    second does not see constants; it holds for conditions without a normalizer that depends on
    them, too.

    Use it where a tractable noise covers the data and is close to them: a Gaussian or a flow that
    was fitted first. No derivative in x is taken, so that a step is cheap and the data need not be
    smooth. Not with a noise far from the data: telling them apart is then too easy to teach
    anything, and the estimate of log Z has a large variance.

    Sources: M. Gutmann & A. Hyvärinen, Noise-contrastive estimation, AISTATS (2010), equations 3
    and 4, and Journal of Machine Learning Research 13 (2012) for several draws; Z. Ma & M.
    Collins, Noise contrastive estimation and negative sampling for conditional models, EMNLP
    (2018), for the ranking loss.

    :param noise: a NumPyro distribution of events like the data, with ``sample`` and ``log_prob``
        (of a learned density: :class:`~numpyro_score.distributions.DensityDistribution`);
        or, for conditions, a function of one condition that returns one.
    :param num_noise: draws :math:`\nu` of the noise per example.
    :param ranking: whether to take the second loss.
    :raises ValueError: ``num_noise`` below 1; at the call, a noise of another shape, or a network
        of this package without a free constant, unless ``ranking``.
    :raises TypeError: ``noise`` is neither a distribution nor a function.

    Called with ``(network, batch, key, condition=None)``: an energy (anything that
    :func:`~numpyro_score.networks.as_network` accepts), a batch of shape ``(n, *event_shape)``, a
    random key, and a condition of shape ``(n, ...)``. It returns shape ``(n,)``.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_score.objectives import NoiseContrastiveEstimation
    >>> noise = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
    >>> objective = NoiseContrastiveEstimation(noise)
    >>> losses = objective(lambda x: -noise.log_prob(x), jnp.zeros((3, 2)), jax.random.key(0))
    >>> [round(loss, 4) for loss in losses.tolist()]  # 2 log 2: nothing tells them apart
    [1.3863, 1.3863, 1.3863]
    """

    noise: dist.Distribution | Callable[[Array], dist.Distribution]
    num_noise: int = 1
    ranking: bool = False

    noise_scale: ClassVar[float] = 0.0
    """This objective blurs nothing."""

    def __post_init__(self):
        check_int(self.num_noise, "num_noise", 1)
        if not isinstance(self.noise, dist.Distribution) and not callable(self.noise):
            raise TypeError(
                "noise must be a NumPyro distribution, or a function of a condition that returns "
                f"one; got {type(self.noise).__name__}."
            )

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``."""
        energy = batched_energy(network, batch)
        if not self.ranking:
            _check_constant(network)
        log_num_noise = jnp.log(float(self.num_noise))

        def loss(x: Array, key: Array, *condition: Array) -> Array:
            noise = self._noise(x.shape, *condition)
            draws = jax.lax.stop_gradient(noise.sample(key, (self.num_noise,)))
            events = jnp.concatenate([x[None], draws])
            energies = jax.vmap(lambda u: energy(u, *condition))(events)
            ratios = -energies - noise.log_prob(events)
            if self.ranking:
                return jax.nn.logsumexp(ratios) - ratios[0]
            logits = ratios - log_num_noise
            return jax.nn.softplus(-logits[0]) + jnp.sum(jax.nn.softplus(logits[1:]))

        return map_rows(loss, condition, batch, jax.random.split(key, len(batch)))

    def _noise(self, event_shape: tuple[int, ...], *condition: Array) -> dist.Distribution:
        noise = self.noise
        if not isinstance(noise, dist.Distribution):
            if not condition:
                raise ValueError(
                    "this noise is a function of a condition, and there is none: give a "
                    "distribution, or a condition."
                )
            noise = noise(*condition)
        if noise.batch_shape or noise.event_shape != event_shape:
            raise ValueError(
                f"noise must have the batch_shape () and the event_shape {event_shape} of the "
                f"data, got {noise.batch_shape} and {noise.event_shape}; see to_event."
            )
        return noise


def _check_constant(network: Any) -> None:
    """Refuse a network whose energy is 0 at the mean of its base, whatever its normalizer is."""
    if isinstance(network, (NormalizedEnergy, DensityNetwork)):
        return
    energy = network.network if isinstance(network, TiltedEnergy) else network
    has_base = isinstance(getattr(energy, "base", None), GaussianBase)
    if has_base and not isinstance(energy, NormalizedEnergy):
        raise ValueError(
            "noise-contrastive estimation learns the normalizer with the energy, and a "
            f"{type(network).__name__} has no free constant for it: give NormalizedEnergy(network)"
            ", or ranking=True."
        )
