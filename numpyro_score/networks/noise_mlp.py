"""Multilayer perceptrons for all levels of noise, on top of the Gaussian of each level."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int, check_positive
from numpyro_score._precision import exact_products
from numpyro_score._typing import Array, Shape
from numpyro_score.networks._frozen import Frozen
from numpyro_score.networks._layers import hidden_layers
from numpyro_score.networks._vector import VectorNetwork, check_columns
from numpyro_score.networks.adapters import as_network
from numpyro_score.networks.base import GaussianBase, Standardization
from numpyro_score.networks.noised_base import NoisedGaussian

#: Angular frequencies of the sines and cosines of log σ: from a period of 25, which is more than
#: any ladder has, to one of 1.6, in which σ changes by a factor of 5.
_SLOWEST, _FASTEST, _NUM_FREQUENCIES = 0.25, 4.0, 8

#: Rows for each entry of a condition from which on its regression is worth more than it costs.
_ROWS_PER_ENTRY = 10
#: The least part of the variance that a regression may leave.
_LEAST_REST = 1e-6


class Regression(Frozen):
    """What a linear regression expects of data given their condition; not trained.

    :param slope: shape ``(in_size, condition_size)``, of the standardized condition.
    """

    slope: Array

    @exact_products
    def __call__(self, standard: Array) -> Array:
        """Return by how much the mean shifts, shape ``(in_size,)``."""
        return jax.lax.stop_gradient(self.slope) @ standard


class _NoiseMLP(VectorNetwork):
    """What the energy and the score share: layers that are shifted by an embedding."""

    base: NoisedGaussian
    regression: Regression | None
    embedding: eqx.nn.Linear
    layers: tuple[eqx.nn.Linear, ...]
    shifts: tuple[eqx.nn.Linear, ...]
    head: Array
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        *,
        width: int = 128,
        depth: int = 3,
        condition_size: int = 0,
        activation: Callable[[Array], Array] = jax.nn.silu,
        columns: Sequence[str] | None = None,
        key: Array,
    ):
        check_int(in_size, "in_size", 1)
        check_int(condition_size, "condition_size", 0)
        layer_key, embedding_key, shift_key = jax.random.split(key, 3)
        self.base = NoisedGaussian.standard(in_size)
        self.condition_standardization = (
            Standardization.identity(condition_size) if condition_size else None
        )
        self.regression = (
            Regression(jnp.zeros((in_size, condition_size))) if condition_size else None
        )
        self.layers = hidden_layers(in_size, width, depth, layer_key)
        features = 2 * _NUM_FREQUENCIES + condition_size
        self.embedding = eqx.nn.Linear(features, width, key=embedding_key)
        self.shifts = tuple(
            eqx.nn.Linear(width, width, use_bias=False, key=k)
            for k in jax.random.split(shift_key, depth)
        )
        self.head = jnp.zeros((*self._out_shape(in_size), width))
        self.in_size = in_size
        self.condition_size = condition_size
        self.activation = activation
        self.columns = check_columns(columns, in_size)

    @staticmethod
    @abstractmethod
    def _out_shape(in_size: int) -> Shape:
        """Shape of the output."""

    @abstractmethod
    def __call__(self, x: Array, noise_scale: Array, condition: Array | None = None) -> Array:
        """Evaluate the network at one event."""

    def fit_base(
        self, data: Array, noise_scale: float = 0.0, condition: Array | None = None
    ) -> Self:
        """Return a copy whose Gaussian is that of the data, given their condition.

        Its mean is linear in the condition, by least squares, and its covariance is that of what
        this leaves: of data that are normal together with their conditions, the exact answer.

        :param data: finite array of shape ``(n, in_size)``.
        :param noise_scale: not used: every level has its own.
        :param condition: array of shape ``(n, condition_size)`` for a conditional network.
        :return: the network with a new base; the weights are shared.
        :raises ValueError: wrong shapes, data that do not vary, or a constant condition.
        """
        based = super().fit_base(data, noise_scale, condition)
        if condition is None or len(data) < _ROWS_PER_ENTRY * self.condition_size:
            return based
        rows, given = np.asarray(data, np.float64), np.asarray(condition, np.float64)
        given = (given - given.mean(0)) / given.std(0)
        away = rows - rows.mean(0)
        slope = np.linalg.lstsq(given, away, rcond=None)[0].T
        rest = away - given @ slope.T
        if rest.var() < _LEAST_REST * away.var():
            # The condition tells all: no level of noise would know the scale of what it leaves.
            return based
        base = NoisedGaussian.fit(rows.mean(0) + rest)
        regression = Regression(jnp.asarray(slope, jnp.result_type(float)))
        return eqx.tree_at(lambda n: (n.base, n.regression), based, (base, regression))

    def _base_of(self, data: Array, noise_scale: float) -> NoisedGaussian:
        return NoisedGaussian.fit(data)

    def _centre(self, x: Array, condition: Array | None) -> Array:
        """Return ``x`` without what the regression expects of it, once both have been checked."""
        self._check_event(x)
        standard = self._standard_condition(condition)
        return x if standard is None or self.regression is None else x - self.regression(standard)

    def _embed(self, noise_scale: Array, condition: Array | None) -> Array:
        relative = jnp.log(noise_scale / self.base.data_scale)
        angles = relative * jnp.geomspace(_SLOWEST, _FASTEST, _NUM_FREQUENCIES)
        features = [jnp.sin(angles), jnp.cos(angles)]
        standard = self._standard_condition(condition)
        if standard is not None:
            features.append(standard)
        return self.activation(self.embedding(jnp.concatenate(features)))

    def _hidden(
        self, x: Array, noise_scale: Array, condition: Array | None, last: Callable[[Array], Array]
    ) -> Array:
        if jnp.shape(noise_scale) != ():
            raise ValueError(
                f"{type(self).__name__} takes one noise_scale of shape () per event, got "
                f"{jnp.shape(noise_scale)}; evaluate a batch with "
                "jax.vmap(network)(x, noise_scale)."
            )
        check_positive(noise_scale, "noise_scale")
        embedding = self._embed(noise_scale, condition)
        hidden = self.base.whiten(x, noise_scale)
        activations = [self.activation] * (len(self.layers) - 1) + [last]
        for i, (layer, shift, act) in enumerate(
            zip(self.layers, self.shifts, activations, strict=True)
        ):
            new = act(layer(hidden) + shift(embedding))
            hidden = hidden + new if 0 < i < len(self.layers) - 1 else new
        return hidden


class NoiseEnergyMLP(_NoiseMLP):
    r"""An energy :math:`f(x, \sigma)` of data with noise of any level σ.

    .. math:: f(x, \sigma) = \tfrac12 (x-\mu)^\top (C + \sigma^2 I)^{-1} (x-\mu)
              + \frac{\sigma_{data}}{\sigma} \mathrm{MLP}(z, \log \sigma)

    with μ and C of the data (:meth:`fit_base`), z whitened at level σ, and hidden layers that are
    shifted by an embedding of log σ and of the condition. With a condition, μ is linear in it, and
    C the covariance of what that leaves. The scalings are those of Karras et al. for the score:
    inputs, outputs and what is to be learned are of order 1 at every level.

    For :class:`~numpyro_score.objectives.LadderScoreMatching`; for the time of a diffusion see
    :class:`numpyro_score.sde.InTime`. One level, as the density of a model, is
    :class:`AtNoise`. The energies of two levels differ by an unknown constant.

    Source: T. Karras et al., Elucidating the design space of diffusion-based generative models,
    NeurIPS (2022), table 1.

    :param in_size: number of entries d of an event.
    :param width: size of the hidden layers.
    :param depth: number of hidden layers; all but the first and the last add to the one before.
    :param condition_size: length of the condition of an energy f(x, σ, c); 0 for none.
    :param activation: elementwise function without arrays of its own, of at most linear growth.
    :param columns: names of the entries, for messages about the data.
    :param key: random key for the weights.

    Called with ``x`` of shape ``(in_size,)``, a ``noise_scale`` of shape ``()``, and a condition
    of shape ``(condition_size,)`` if there is one, it returns the energy, shape ``()``. Any other
    shape is a ``ValueError``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import NoiseEnergyMLP
    >>> network = NoiseEnergyMLP(2, width=8, key=jax.random.key(0))
    >>> round(network(jnp.array([3.0, 4.0]), 2.0).item(), 3)
    2.5
    """

    @staticmethod
    def _out_shape(in_size: int) -> Shape:
        return ()

    def __call__(self, x: Array, noise_scale: Array, condition: Array | None = None) -> Array:
        """Return the energy of one event, shape ``()``."""
        x = self._centre(x, condition)
        correction = self.head @ self._hidden(x, noise_scale, condition, self.activation)
        scale = self.base.data_scale / noise_scale
        return self.base.energy(x, noise_scale) + scale * correction


class NoiseScoreMLP(_NoiseMLP):
    r"""A score :math:`s(x, \sigma)` of data with noise of any level σ.

    As :class:`NoiseEnergyMLP`, but the output is the score: that of the Gaussian plus a bounded
    correction, which :meth:`NoisedGaussian.correct` scales to what it may be at each level.

    :param in_size: number of entries d of an event.
    :param width: size of the hidden layers.
    :param depth: number of hidden layers; all but the first and the last add to the one before.
    :param condition_size: length of the condition of a score s(x, σ, c); 0 for none.
    :param activation: elementwise function of the hidden layers but the last, which has tanh.
    :param columns: names of the entries, for messages about the data.
    :param key: random key for the weights.

    Called with ``x`` of shape ``(in_size,)``, a ``noise_scale`` of shape ``()``, and a condition
    of shape ``(condition_size,)`` if there is one, it returns the score, shape ``(in_size,)``. Any
    other shape is a ``ValueError``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import NoiseScoreMLP
    >>> network = NoiseScoreMLP(2, width=8, key=jax.random.key(0))
    >>> network(jnp.array([5.0, 10.0]), 2.0).tolist()
    [-1.0, -2.0]
    """

    @staticmethod
    def _out_shape(in_size: int) -> Shape:
        return (in_size,)

    def __call__(self, x: Array, noise_scale: Array, condition: Array | None = None) -> Array:
        """Return the score at one event, shape ``(in_size,)``."""
        x = self._centre(x, condition)
        correction = self.head @ self._hidden(x, noise_scale, condition, jnp.tanh)
        return self.base.score(x, noise_scale) + self.base.correct(correction, noise_scale)


class AtNoise(eqx.Module):
    r"""One level of a network of all noise levels: what a distribution takes.

    :param network: ``network(x, noise_scale[, condition])``, such as :class:`NoiseEnergyMLP`, or
        anything else that :func:`~numpyro_score.networks.as_network` accepts.
    :param noise_scale: the level, in units of the data.
    :raises ValueError: a noise scale that is not finite or not above 0.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.distributions import EnergyDistribution
    >>> from numpyro_score.networks import AtNoise, NoiseEnergyMLP
    >>> network = NoiseEnergyMLP(2, width=8, key=jax.random.key(0))
    >>> prior = EnergyDistribution(AtNoise(network, 0.05), (2,))
    >>> prior.log_prob(jnp.zeros(2)).item()
    -0.0
    """

    network: Callable[..., Array]
    noise_scale: float = eqx.field(static=True)

    def __init__(self, network: Any, noise_scale: float) -> None:
        check_positive(noise_scale, "noise_scale")
        self.network = as_network(network)
        self.noise_scale = float(noise_scale)

    @property
    def base(self) -> GaussianBase | None:
        """The Gaussian base of the network at this level, where it has one."""
        base = getattr(self.network, "base", None)
        return base.at(self.noise_scale) if isinstance(base, NoisedGaussian) else None

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Evaluate the network at one event."""
        rest = () if condition is None else (condition,)
        return self.network(x, jnp.asarray(self.noise_scale, float), *rest)
