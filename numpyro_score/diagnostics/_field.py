"""Scores and draws as users have them, turned into rows of events in unconstrained coordinates."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.transforms import Transform, biject_to

from numpyro_score._checks import check_float
from numpyro_score._typing import Array, Shape
from numpyro_score.distributions import LearnedDistribution
from numpyro_score.distributions._support import event_support, is_real

_ROWS = 1_024


class Field(eqx.Module):
    """The score of one event, with one condition for each row where the distribution has some."""

    source: Any
    transform: Transform | None = None
    conditions: Array | None = None

    def __call__(self, z: Array, *condition: Array) -> Array:
        """Return the score at one event, in unconstrained coordinates."""
        if self.transform is None:
            return self._score(z, *condition)
        transform = self.transform
        x, pull = jax.vjp(transform, z)
        (score,) = pull(self._score(x, *condition))
        return score + jax.grad(lambda z: transform.log_abs_det_jacobian(z, transform(z)).sum())(z)

    def _score(self, x: Array, *condition: Array) -> Array:
        if isinstance(self.source, LearnedDistribution):
            if not condition:
                return self.source.score(x)
            one = copy.copy(self.source)
            one.condition, one._batch_shape = condition[0], ()
            return one.score(x)
        if isinstance(self.source, dist.Distribution):
            return jax.grad(lambda x: self.source.log_prob(x).sum())(x)
        return jnp.asarray(self.source(x))


def map_rows(field: Field, fn: Callable[..., Any], *rows: Array, batch_size: int = _ROWS) -> Any:
    """Map ``fn(score, *row)`` over rows, in batches; ``score`` is a function of one event."""
    conditions = () if field.conditions is None else (field.conditions,)

    def one(args: tuple[tuple[Array, ...], tuple[Array, ...]]) -> Any:
        condition, row = args
        return fn(lambda z: field(z, *condition), *row)

    return jax.lax.map(one, (conditions, rows), batch_size=min(batch_size, len(rows[0])))


@eqx.filter_jit
def scores_at(field: Field, x: Array) -> Array:
    """Return scores at rows of events, of their shape."""
    return map_rows(field, lambda score, x: score(x), x)


class Rows(NamedTuple):
    """Events ``(n, *event_shape)`` in unconstrained coordinates, chain after chain."""

    x: Array
    num_chains: int

    @property
    def flat(self) -> Array:
        """Events as vectors, ``(n, d)``."""
        return self.x.reshape(len(self.x), -1)


def read(
    score: Any,
    draws: Array,
    event_dim: int | None,
    *,
    minimum: int,
    name: str = "draws",
    unconstrain: bool = True,
) -> tuple[Rows, Field]:
    """Return draws as rows, and the score as a function of such rows.

    :param score: a distribution, or a function of one event.
    :param draws: shape ``(n, *event_shape)`` or ``(chains, draws, *event_shape)``.
    :param event_dim: axes of an event; None for those of the distribution, or 1 where ``draws`` has
        two axes.
    :param minimum: how many rows are needed.
    """
    check_float(draws, name)
    draws = jnp.asarray(draws)
    known = isinstance(score, dist.Distribution)
    if known and event_dim is not None and event_dim != score.event_dim:
        raise ValueError(
            f"event_dim is that of the distribution, {score.event_dim}, got {event_dim}: leave it "
            "out."
        )
    if known:
        event_dim = score.event_dim
    lead = _lead(draws.shape, event_dim, name)
    event_shape = draws.shape[len(lead) :]
    if known and event_shape != score.event_shape:
        raise ValueError(
            f"{name} must have the shape (n, *event_shape) or (chains, draws, *event_shape) with "
            f"the event_shape {score.event_shape} of the distribution, got {draws.shape}."
        )
    n = math.prod(lead)
    if n < minimum:
        raise ValueError(
            f"{name} must have the shape (n, *event_shape) with n of at least {minimum}, got "
            f"{draws.shape}."
        )
    x = draws.reshape(n, *event_shape)
    field = _field(score, lead, event_shape, unconstrain)
    if field.transform is not None:
        x = _to_unconstrained(x, field.transform, score.support, name)
    check_finite(x, name.removesuffix("s") if name == "draws" else f"row of {name}")
    check_varied(x, name)
    found = jax.eval_shape(lambda x: jax.vmap(field)(x, *_conditions(field)), x)
    _check_shape(found.shape[1:], x.shape[1:])
    return Rows(x, lead[0] if len(lead) == 2 else 1), field


def read_scores(
    score: Any, draws: Array, event_dim: int | None, *, minimum: int
) -> tuple[Rows, Array]:
    """Return draws as rows, and their scores, likewise; scores may be given as numbers."""
    if callable(score) or isinstance(score, dist.Distribution):
        rows, field = read(score, draws, event_dim, minimum=minimum)
        scores = scores_at(field, rows.x)
    else:
        rows, _ = read(_nothing, draws, event_dim, minimum=minimum)
        scores = jnp.asarray(score, jnp.result_type(float))
        lead = _lead(jnp.shape(draws), event_dim, "draws")
        _check_shape(scores.shape[len(lead) :], jnp.shape(draws)[len(lead) :])
        if scores.shape != jnp.shape(draws):
            raise ValueError(
                f"score must have the shape of the draws, {jnp.shape(draws)}, got {scores.shape}."
            )
        scores = scores.reshape(rows.x.shape)
    check_finite(scores, "score")
    return rows, scores


def check_finite(rows: Array | np.ndarray, name: str) -> None:
    """Refuse NaN and infinity."""
    lost = ~np.isfinite(np.asarray(rows)).reshape(len(rows), -1).all(1)
    if lost.any():
        raise FloatingPointError(
            f"a {name} is not finite ({lost.sum()} of {len(lost)}, the first is number "
            f"{lost.argmax()}); leave out such draws, and say so."
        )


def check_varied(x: Array, name: str) -> None:
    """Refuse rows that are all the same."""
    if bool((x == x[0]).all()):
        raise ValueError(
            f"{name} are all one and the same, so that they tell of no density: look at a chain "
            "that did not move."
        )


def _nothing(x: Array) -> Array:
    return x


def _conditions(field: Field) -> tuple[Array, ...]:
    return () if field.conditions is None else (field.conditions,)


def _check_shape(found: Shape, expected: Shape) -> None:
    if found != expected:
        raise ValueError(
            f"score must give an array of the shape of a draw, {expected}; got {found}."
        )


def _lead(shape: Shape, event_dim: int | None, name: str) -> Shape:
    if event_dim is None and len(shape) > 2:
        raise ValueError(_two_readings(shape, name))
    event_dim = 1 if event_dim is None else event_dim
    if event_dim < 0 or len(shape) - event_dim not in (1, 2):
        raise ValueError(
            f"{name} must have the shape (n, *event_shape) or (chains, draws, *event_shape), with "
            f"n of at least 2 and {event_dim} axes of an event, got {shape}. Other axes of an "
            "event: give event_dim."
        )
    return shape[: len(shape) - event_dim]


def _two_readings(shape: Shape, name: str) -> str:
    most = len(shape) - 1
    return (
        f"{name} of shape {shape} may be {shape[0]} events of shape {shape[1:]}, or {shape[0]} "
        f"chains of {shape[1]} events of shape {shape[2:]}, and a score that is no distribution "
        f"does not say which: give event_dim={most} for the one, event_dim={most - 1} for the "
        "other."
    )


def _field(score: Any, lead: Shape, event_shape: Shape, unconstrain: bool) -> Field:
    if not isinstance(score, dist.Distribution):
        return Field(score)
    transform = None
    if unconstrain:
        support = event_support(score.support, len(event_shape))
        transform = None if is_real(support) else biject_to(support)
    if score.batch_shape == ():
        return Field(score, transform)
    condition = getattr(score, "condition", None)
    if condition is None or score.batch_shape != lead:
        raise ValueError(
            f"a distribution of batch_shape {score.batch_shape} is {math.prod(score.batch_shape)} "
            "densities: give one of them, or a condition for each draw, of batch_shape "
            f"{lead}."
        )
    return Field(score, transform, condition.reshape(-1, *condition.shape[len(lead) :]))


def _to_unconstrained(x: Array, transform: Transform, support: Any, name: str) -> Array:
    inside = np.asarray(support(x))
    if not inside.all():
        raise ValueError(
            f"{name} must lie in the support of the distribution, {support}; {(~inside).sum()} of "
            f"{inside.size} do not."
        )
    return jax.vmap(transform.inv)(x)
