"""Learned distributions inside others."""

from __future__ import annotations

from typing import Any

import jax

from numpyro_score.distributions.base import LearnedDistribution


def unnormalized_parts(fn: Any) -> list[LearnedDistribution]:
    """Return the unnormalized learned distributions in a site's distribution, however wrapped."""
    leaves = jax.tree.leaves(fn, is_leaf=lambda node: isinstance(node, LearnedDistribution))
    return [x for x in leaves if isinstance(x, LearnedDistribution) and not x.normalized]
