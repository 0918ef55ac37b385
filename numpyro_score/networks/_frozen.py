"""Which arrays of a network are trained, and which are data that it carries."""

from __future__ import annotations

import equinox as eqx
import jax

from numpyro_score._typing import PyTree


class Frozen(eqx.Module):
    """Base class of modules whose arrays are leaves, yet no parameters.

    A stopped gradient alone would not do: weight decay changes a parameter without one.
    """


class Constants(Frozen):
    """Any pytree that is carried along and not trained."""

    tree: PyTree


def trainable(network: PyTree) -> PyTree:
    """Mark the floating-point arrays of ``network`` that lie outside any frozen module.

    :param network: a pytree of arrays and other leaves.
    :return: a pytree prefix of booleans, for ``equinox.partition``.
    """
    return jax.tree.map(
        lambda node: not isinstance(node, Frozen) and eqx.is_inexact_array(node),
        network,
        is_leaf=lambda node: isinstance(node, Frozen),
    )
