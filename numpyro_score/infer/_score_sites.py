"""Score sites taken out of a model's log density, and integrated along a segment instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.primitives import Messenger

from numpyro_score._typing import Array, PyTree, Shape
from numpyro_score.distributions import LearnedDistribution, ScoreDistribution
from numpyro_score.distributions._vectorize import leading_shape
from numpyro_score.distributions.product import known_by_score
from numpyro_score.infer.model_checks import ModelError
from numpyro_score.samplers._quadrature import gauss_lobatto

# All that these do to a log density is linear in it, but for terms of their own.
_WRAPPERS = (
    dist.Independent,
    dist.ExpandedDistribution,
    dist.MaskedDistribution,
    dist.TransformedDistribution,
)


class Mark(NamedTuple):
    """Where a score site is, as its distribution sees it: the value, and the score there."""

    value: Array
    score: Array


Marks = dict[str, Mark]


def score_part(name: str, fn: Any) -> LearnedDistribution | None:
    """Return what a site's distribution ``fn`` has that is known by its score, or None.

    A product with a score among its factors is known by the sum.

    :raises ModelError: where something is made of it that is not linear in its log density.
    """
    part = fn
    while type(part) in _WRAPPERS:
        part = part.base_dist
    if known_by_score(part):
        return part
    inside = jax.tree.leaves(fn, is_leaf=known_by_score)
    if any(known_by_score(leaf) for leaf in inside):
        raise ModelError(
            f"Site {name!r} has a ScoreDistribution inside a {type(part).__name__}. With "
            'path="local" a score site is known by differences of its log density alone, so it '
            "may be expanded, masked, transformed or made Independent, and nothing else; use "
            'path="anchored".'
        )
    return None


class ScoreSites(Messenger):
    """Handler under which score sites add nothing to a model's log density, but are integrated.

    Outermost around a model whose latent sites all have values, so that it sees each site as
    plates, masks and scales have left it. Afterwards **integral** is the sum of the line integrals
    of all score sites from ``start`` to where they are, with the total score as its derivative, and
    **marks** says where that is.

    :param start: where the segments begin; None to evaluate the score and integrate nothing.
    :param num_nodes: nodes of the Gauss-Lobatto rule, both ends included.
    """

    def __init__(self, start: Marks | None, num_nodes: int) -> None:
        super().__init__()
        self.start = start
        self.num_nodes = num_nodes
        self.integral: Array | float = 0.0
        self.marks: Marks = {}
        self.parts: dict[str, LearnedDistribution] = {}

    def process_message(self, msg: Any) -> None:
        """Replace the distribution of a score site, and add its integral."""
        if msg["type"] != "sample" or msg["value"] is None:
            return
        name, fn = msg["name"], msg["fn"]
        part = score_part(name, fn)
        if part is None:
            return
        self.parts[name] = part

        def integrate(value: Array) -> Array:
            start = None if self.start is None else self.start[name]
            integral, self.marks[name] = _along_segment(part, value, start, self.num_nodes)
            return integral

        def no_change(value: Array) -> Array:
            return jnp.zeros(_lead(part, value))

        silent = _replace(fn, part, no_change)
        # A transformed distribution adds a Jacobian, which is known exactly.
        change = _replace(fn, part, integrate).log_prob(msg["value"]) - silent.log_prob(
            msg["value"]
        )
        scale = 1.0 if msg["scale"] is None else msg["scale"]
        self.integral = self.integral + jnp.sum(scale * change)
        msg["fn"] = silent


def _along_segment(
    part: LearnedDistribution, value: Array, start: Mark | None, num_nodes: int
) -> tuple[Array, Mark]:
    """Return the integral for each event, and the mark of its end.

    Costs ``num_nodes - 1`` evaluations of the network in one batch: the first node is known.
    """
    lead = _lead(part, value)
    value = jnp.asarray(value, jnp.result_type(value, float))
    value = jnp.broadcast_to(value, lead + part.event_shape)
    end = jax.lax.stop_gradient(value)
    events = tuple(range(len(lead), value.ndim))
    if start is None:
        score, integral = part.score(end), jnp.zeros(lead, value.dtype)
    else:
        nodes, weights = gauss_lobatto(num_nodes)
        direction = end - start.value
        t = jnp.asarray(nodes[1:-1], value.dtype).reshape((-1,) + (1,) * value.ndim)
        scores = part.score(jnp.concatenate([start.value + t * direction, end[None]]))
        score = scores[-1]
        scores = jnp.concatenate([start.score[None], scores])
        shares = jnp.asarray(weights, value.dtype)
        mean = jnp.tensordot(shares, scores, 1, precision="highest")
        integral = jnp.sum(mean * direction, events)
    # The derivative is declared to be the score, as that of the anchored integral is.
    return integral + jnp.sum(score * (value - end), events), Mark(end, score)


def _lead(part: LearnedDistribution, value: Array) -> Shape:
    return jnp.broadcast_shapes(leading_shape(value, part.event_dim), part.batch_shape)


class _StandIn(ScoreDistribution):
    """A score distribution with another log density, to put in the place of ``part``."""

    def __init__(self, part: LearnedDistribution, log_prob: Callable[[Array], Array]) -> None:
        self.__dict__.update(part.__dict__)
        self._log_prob = log_prob

    def log_prob(self, value: Array, intermediates: list[Any] | None = None) -> Array:
        return self._log_prob(value)


def _replace(fn: PyTree, part: LearnedDistribution, log_prob: Callable[[Array], Array]) -> Any:
    stand_in = _StandIn(part, log_prob)
    return jax.tree.map(
        lambda leaf: stand_in if known_by_score(leaf) else leaf, fn, is_leaf=known_by_score
    )
