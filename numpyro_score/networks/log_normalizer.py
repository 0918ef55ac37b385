"""A network for what an energy does not know of its conditions: log Z."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.networks._layers import hidden_layers
from numpyro_score.networks.base import Standardization


class LogNormalizerMLP(eqx.Module):
    r"""A number :math:`h(y)` for each condition y, for :class:`NormalizedEnergy`.

    A multilayer perceptron on standardized conditions, whose last layer starts at zero.

    :param condition_size: length of a condition.
    :param width: size of the hidden layers.
    :param depth: number of hidden layers.
    :param activation: elementwise function without arrays of its own.
    :param key: random key for the weights.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import LogNormalizerMLP
    >>> LogNormalizerMLP(2, width=8, key=jax.random.key(0))(jnp.ones(2)).item()
    0.0
    """

    standardization: Standardization
    layers: tuple[eqx.nn.Linear, ...]
    head: Array
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        condition_size: int,
        *,
        width: int = 64,
        depth: int = 2,
        activation: Callable[[Array], Array] = jax.nn.silu,
        key: Array,
    ):
        check_int(condition_size, "condition_size", 1)
        self.standardization = Standardization.identity(condition_size)
        self.layers = hidden_layers(condition_size, width, depth, key)
        self.head = jnp.zeros(width)
        self.activation = activation

    def __call__(self, condition: Array) -> Array:
        """Return one number for one condition."""
        size = self.standardization.mean.shape
        if jnp.shape(condition) != size:
            raise ValueError(
                f"LogNormalizerMLP takes one condition of shape {size}, got {jnp.shape(condition)}."
            )
        hidden = self.standardization(condition)
        for layer in self.layers:
            hidden = self.activation(layer(hidden))
        return self.head @ hidden

    def fit_base(self, condition: Array | None) -> Self:
        """Return a copy whose standardization is that of conditions of shape ``(n, size)``."""
        size = self.standardization.mean.shape
        if condition is None or jnp.shape(condition)[1:] != size:
            got = "none" if condition is None else f"the shape {jnp.shape(condition)}"
            raise ValueError(f"conditions must have the shape (n, {size[0]}), got {got}.")
        standardization = Standardization.fit(condition, "condition")
        return eqx.tree_at(lambda n: n.standardization, self, standardization)
