"""Multilayer perceptrons on top of a Gaussian base."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, Shape
from numpyro_score.networks._layers import hidden_layers
from numpyro_score.networks._vector import VectorNetwork, check_columns
from numpyro_score.networks.base import GaussianBase, Standardization


class _GaussianMLP(VectorNetwork):
    """What the energy and the score network share: hidden layers and a head."""

    base: GaussianBase
    layers: tuple[eqx.nn.Linear, ...]
    head: Array
    activation: Callable[[Array], Array] = eqx.field(static=True)
    residual: bool = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        *,
        width: int = 128,
        depth: int = 2,
        condition_size: int = 0,
        activation: Callable[[Array], Array] = jax.nn.silu,
        residual: bool = False,
        columns: Sequence[str] | None = None,
        key: Array,
    ):
        check_int(in_size, "in_size", 1)
        check_int(condition_size, "condition_size", 0)
        self.base = GaussianBase.standard(in_size)
        self.condition_standardization = (
            Standardization.identity(condition_size) if condition_size else None
        )
        self.layers = hidden_layers(in_size + condition_size, width, depth, key)
        self.head = jnp.zeros((*self._out_shape(in_size), width))
        self.in_size = in_size
        self.condition_size = condition_size
        self.activation = activation
        self.residual = residual
        self.columns = check_columns(columns, in_size)

    @staticmethod
    @abstractmethod
    def _out_shape(in_size: int) -> Shape:
        """Shape of the output."""

    @abstractmethod
    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Evaluate the network at one event."""

    def _hidden(self, hidden: Array, layers: tuple[eqx.nn.Linear, ...]) -> Array:
        for i, layer in enumerate(layers):
            new = self.activation(layer(hidden))
            hidden = hidden + new if self.residual and i > 0 else new
        return hidden

    def _input(self, x: Array, condition: Array | None) -> Array:
        self._check_event(x)
        standard = self.base.standardization(x)
        given = self._standard_condition(condition)
        return standard if given is None else jnp.concatenate([standard, given])


class EnergyMLP(_GaussianMLP):
    r"""An energy :math:`f(x) = \tfrac12 (x-\mu)^\top P (x-\mu) + \mathrm{MLP}(z)`.

    :math:`z = (x - \mu) / \mathrm{scale}` is the standardized input. Base and standardization
    come from :meth:`fit_base` (before that: a standard normal, no scaling) and are not trained.
    The last layer starts at zero, so that an untrained network is the Gaussian itself.

    The density :math:`\exp(-f)` is proper for any weights as long as the activation grows at
    most linearly (silu, softplus, tanh, …). One that grows quadratically breaks that.

    :param in_size: number of entries d of an event.
    :param width: size of the hidden layers.
    :param depth: number of hidden layers.
    :param condition_size: length of the condition c of an energy f(x, c); 0 for none.
    :param activation: elementwise function without arrays of its own. With relu, whose gradient
        jumps, the energy cannot be learned by explicit or sliced score matching.
    :param residual: whether each hidden layer but the first adds to the one before, which deep
        networks learn better with (He et al., 2016).
    :param columns: names of the entries, for messages about the data.
    :param key: random key for the weights.

    Called with ``x`` of shape ``(in_size,)``, and a condition of shape ``(condition_size,)`` if
    there is one, it returns the energy, shape ``()``. Any other shape is a ``ValueError``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import EnergyMLP
    >>> network = EnergyMLP(2, width=8, key=jax.random.key(0))
    >>> float(network(jnp.array([3.0, 4.0])))
    12.5
    """

    @staticmethod
    def _out_shape(in_size: int) -> Shape:
        return ()

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return the energy of one event, shape ``()``."""
        hidden = self._hidden(self._input(x, condition), self.layers)
        return self.base.energy(x) + self.head @ hidden


class ScoreMLP(_GaussianMLP):
    r"""A score :math:`s(x) = -P (x-\mu) + \mathrm{MLP}(z)`.

    As :class:`EnergyMLP`, but the output is the score. The last hidden layer always goes
    through tanh: a bounded correction is to a score what one of linear growth is to an energy,
    and far from the data the field points back to the mean, whatever the weights. The field need
    not be the gradient of anything.

    :param in_size: number of entries d of an event.
    :param width: size of the hidden layers.
    :param depth: number of hidden layers.
    :param condition_size: length of the condition c of a score s(x, c); 0 for none.
    :param activation: elementwise function of the hidden layers but the last.
    :param residual: whether each hidden layer but the first and the last adds to the one before.
    :param columns: names of the entries, for messages about the data.
    :param key: random key for the weights.

    Called with ``x`` of shape ``(in_size,)``, and a condition of shape ``(condition_size,)`` if
    there is one, it returns the score, shape ``(in_size,)``. Any other shape is a ``ValueError``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import ScoreMLP
    >>> network = ScoreMLP(2, width=8, key=jax.random.key(0))
    >>> network(jnp.array([3.0, 4.0])).tolist()
    [-3.0, -4.0]
    """

    @staticmethod
    def _out_shape(in_size: int) -> Shape:
        return (in_size,)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return the score at one event, shape ``(in_size,)``."""
        hidden = self._hidden(self._input(x, condition), self.layers[:-1])
        return self.base.score(x) + self.head @ jnp.tanh(self.layers[-1](hidden))
