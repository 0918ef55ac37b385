"""Energies whose gradient jumps: their second derivative misses what the jumps contribute.

Hyvärinen's loss is the Fisher divergence after an integration by parts, for which the score must
be continuous. With a piecewise linear activation the score of an energy is not, and the trace that
automatic differentiation finds is that of the base alone: the loss then has a flat density as its
minimum.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import equinox as eqx
import jax

from numpyro_score._typing import Array
from numpyro_score.networks import NormalizedEnergy, as_network
from numpyro_score.networks._frozen import Frozen
from numpyro_score.networks.score import EnergyScore

_NAMES = (
    "relu",
    "relu6",
    "leaky_relu",
    "hard_tanh",
    "hard_sigmoid",
    "hard_silu",
    "selu",
    "sparse_sigmoid",
)


def refuse_kinks(network: Any, batch: Array, condition: Array | None, objective: str) -> None:
    """Refuse an energy made of activations without a continuous derivative.

    Of a score, which is differentiated once less, they are welcome. They are known where they are
    fields of Equinox modules, by what they are: a function cannot be looked into.

    :param network: anything that ``as_network`` accepts.
    :param objective: its name, for the message.
    :raises ValueError: naming the activation.
    """
    network = as_network(network)
    if isinstance(network, EnergyScore):
        network = network.energy
    found = next(_kinks(network), None)
    if found is None:
        return
    args = (batch[0],) if condition is None else (batch[0], condition[0])
    if getattr(jax.eval_shape(network, *args), "shape", None) == ():
        raise ValueError(
            f"{objective} needs an energy with two derivatives, got {found} in the "
            f"{type(network).__name__}; take silu, softplus or tanh, or DenoisingScoreMatching."
        )


def _kinks(node: Any) -> Iterator[str]:
    """Yield names of activations with kinks, wherever the event goes through what is trained."""
    if isinstance(node, Frozen):
        return
    if isinstance(node, NormalizedEnergy):
        # Not into its function of the condition.
        yield from _kinks(node.energy)
    elif isinstance(node, eqx.nn.PReLU):
        yield "PReLU"
    elif isinstance(node, eqx.Module):
        for value in vars(node).values():
            yield from _kinks(value)
    elif isinstance(node, (tuple, list)):
        for value in node:
            yield from _kinks(value)
    elif isinstance(node, dict):
        yield from _kinks(tuple(node.values()))
    elif isinstance(node, partial):
        yield from _kinks(node.func)
    elif callable(node):
        yield from (name for name in _NAMES if node is getattr(jax.nn, name, None))
