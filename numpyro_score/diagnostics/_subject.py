"""A distribution and its data, as :func:`check` looks at them: row by row, unconstrained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from numpyro_score._typing import Array, PyTree
from numpyro_score.diagnostics._field import Field, read
from numpyro_score.distributions import LearnedDistribution
from numpyro_score.distributions._parts import unnormalized_parts

_MINIMUM = 20
_BATCH = 250
_MOST = 1_000


class Density(eqx.Module):
    """The log density of one event, in unconstrained coordinates with their Jacobian."""

    field: Field

    def __call__(self, z: Array, *condition: Array) -> Array:
        """Return log p(z), without its normalizer where there is a condition."""
        source, transform = self.field.source, self.field.transform
        if condition:
            source = copy.copy(source)
            source.condition, source._batch_shape = condition[0], ()
            source.log_normalizer = None
        if transform is None:
            return source.log_prob(z)
        x = transform(z)
        return source.log_prob(x) + jnp.sum(transform.log_abs_det_jacobian(z, x))


class Subject:
    """A distribution with rows of data, of which one half is the reference.

    - **data** - as given, with `distribution` and its conditions.
    - **z** - the rows without constraints, shuffled; `field` has their conditions.
    - **order** - where the rows of `z` stand in `data`.

    :param distribution: with one density, or a condition for each row.
    :param data: shape ``(n, *event_shape)``.
    :raises TypeError: ``distribution`` is none.
    :raises ValueError: shapes that do not fit, fewer than 20 rows, rows that are all the same.
    :raises FloatingPointError: a row is not finite.
    """

    def __init__(self, distribution: Any, data: Array) -> None:
        if not isinstance(distribution, dist.Distribution):
            raise TypeError(f"check takes a distribution, got {type(distribution).__name__}.")
        if distribution.support is not None and distribution.support.is_discrete:
            raise ValueError(
                "check needs a density of real numbers: give the base_dist of a Dequantized, and "
                "data that dequantize(...) made."
            )
        if jnp.ndim(data) != distribution.event_dim + 1:
            raise ValueError(
                f"data must have the shape (n, *event_shape) with the event_shape "
                f"{distribution.event_shape} of the distribution, got {jnp.shape(data)}."
            )
        rows, field = read(distribution, data, None, minimum=_MINIMUM, name="data")
        self.distribution = distribution
        self.data = jnp.asarray(data)
        # Halves of rows in an order, by class or by time, would not be draws of one density.
        self.order = np.random.default_rng(0).permutation(len(rows.x))
        self.z = rows.x[self.order]
        if field.conditions is not None:
            field = Field(field.source, field.transform, field.conditions[self.order])
        self.field = field
        self.density = Density(field)

    @property
    def num_rows(self) -> int:
        """How many rows of data there are."""
        return len(self.z)

    @property
    def size(self) -> int:
        """Numbers in an event without constraints."""
        return int(np.prod(self.z.shape[1:]))

    @property
    def conditions(self) -> tuple[Array, ...]:
        """The condition of each row of `z`, where there are some."""
        return () if self.field.conditions is None else (self.field.conditions,)

    @property
    def is_learned(self) -> bool:
        """Whether the distribution itself is one of this package."""
        return isinstance(self.distribution, LearnedDistribution)

    @property
    def is_normalized(self) -> bool:
        """Whether ``log_prob`` has its normalizer."""
        return not unnormalized_parts(self.distribution)

    @property
    def halves(self) -> tuple[slice, slice]:
        """The reference, and as many rows of `z` that are compared to it."""
        half = min(self.num_rows // 2, _MOST)
        return slice(0, half), slice(half, 2 * half)

    @cached_property
    def scores(self) -> np.ndarray:
        """Scores of the rows of `z`, ``(n, d)``."""
        scores = self.map(_score_at, self.z, slice(None))
        return np.asarray(scores).reshape(self.num_rows, -1)

    def map(self, fn: Callable[..., Any], rows: PyTree, take: slice | np.ndarray) -> Any:
        """Map ``fn(log_density, score, row)`` over rows with the conditions of some rows.

        :param fn: of a module, so that it is compiled once.
        """
        return _map(self.density, fn, rows, tuple(c[take] for c in self.conditions))


def _score_at(log_density: Any, score: Any, z: Array) -> Array:
    return score(z)


@eqx.filter_jit
def _map(density: Density, fn: Any, rows: PyTree, conditions: tuple[Array, ...]) -> Any:
    def one(row: PyTree, conditions: tuple[Array, ...]) -> Any:
        return fn(lambda z: density(z, *conditions), lambda z: density.field(z, *conditions), row)

    # A last batch of another size would be compiled once more.
    num = len(jax.tree.leaves(rows)[0])
    filled = jnp.arange(-(-num // _BATCH) * _BATCH) % num if num > _BATCH else jnp.arange(num)
    batch = jax.tree.map(lambda x: x[filled], (rows, conditions))
    outcome = jax.lax.map(lambda row: one(*row), batch, batch_size=min(num, _BATCH))
    return jax.tree.map(lambda x: x[:num], outcome)
