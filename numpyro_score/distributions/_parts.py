"""Learned distributions inside others, and what distributions must share to be composed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.constraints import Constraint

from numpyro_score._typing import Shape
from numpyro_score.distributions._support import event_support
from numpyro_score.distributions.base import LearnedDistribution


def unnormalized_parts(fn: Any) -> list[LearnedDistribution]:
    """Return the unnormalized learned distributions in a site's distribution, however wrapped."""
    leaves = jax.tree.leaves(fn, is_leaf=lambda node: isinstance(node, LearnedDistribution))
    return [x for x in leaves if isinstance(x, LearnedDistribution) and not x.normalized]


def is_normalized(distribution: dist.Distribution) -> bool:
    """Whether the log density of a distribution, learned or of NumPyro, includes its normalizer."""
    inner = distribution
    while hasattr(inner, "base_dist"):
        if isinstance(inner, dist.MaskedDistribution):
            return False
        inner = inner.base_dist
    return not isinstance(inner, dist.ImproperUniform) and not unnormalized_parts(distribution)


def check_members(members: Sequence[Any], word: str) -> tuple[Shape, Shape, Constraint]:
    """Return event shape, batch shape and support that distributions have in common.

    :param word: what to call one of them.
    :raises TypeError: one is no distribution.
    :raises ValueError: there is none, one is discrete, or they differ in events or support.
    """
    if not members:
        raise ValueError(f"at least one {word} is needed, got none.")
    for i, member in enumerate(members):
        if not isinstance(member, dist.Distribution):
            raise TypeError(
                f"each {word} must be a distribution, learned or of NumPyro; number {i} is "
                f"{member!r}. A network needs an EnergyDistribution or ScoreDistribution around it."
            )
        if isinstance(member, dist.Delta) or member.support is None or member.support.is_discrete:
            raise ValueError(
                f"each {word} must have a density over real numbers to have a score; number {i}, "
                f"a {type(member).__name__}, has none."
            )
    shapes = [member.event_shape for member in members]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"each {word} must have the same event_shape, got {shapes}. For independent numbers in "
            "one event, make them part of it with .to_event(1)."
        )
    supports = [event_support(member.support, len(shapes[0])) for member in members]
    if any(support != supports[0] for support in supports):
        raise ValueError(
            f"each {word} must have the same support, got {supports}: where one ends and another "
            "does not, the bijection to the real numbers of one would miss or leave the other. "
            "Give all of them the support of the narrowest, as with EnergyDistribution(lambda x: "
            "-d.log_prob(x), event_shape, support=...)."
        )
    try:
        batch_shape = jnp.broadcast_shapes(*(member.batch_shape for member in members))
    except ValueError:
        raise ValueError(
            f"the batch shapes must broadcast, got {[member.batch_shape for member in members]}."
        ) from None
    return shapes[0], batch_shape, supports[0]
