"""What the networks for vectors share: the Gaussian base, and the shapes that they accept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.networks.base import GaussianBase, Standardization


class VectorNetwork(eqx.Module):
    """A network of events of shape ``(in_size,)``; conditional if ``condition_size`` is not 0."""

    base: eqx.AbstractVar[Any]
    condition_standardization: Standardization | None
    in_size: int = eqx.field(static=True)
    condition_size: int = eqx.field(static=True)
    columns: tuple[str, ...] | None = eqx.field(static=True)

    def fit_base(
        self, data: Array, noise_scale: float = 0.0, condition: Array | None = None
    ) -> Self:
        """Return a copy whose Gaussian base and standardization are those of the data.

        :param data: finite array of shape ``(n, in_size)``.
        :param noise_scale: standard deviation of the noise that the objective adds, in units of
            the data; its variance is added to the covariance of the base.
        :param condition: array of shape ``(n, condition_size)`` for a conditional network. The
            base does not depend on it.
        :return: the network with a new base; the weights are shared.
        :raises ValueError: wrong shapes, or columns that are constant or linearly dependent.
        """
        _check_rows(data, self.in_size, "data")
        based = eqx.tree_at(lambda n: n.base, self, self._base_of(data, noise_scale))
        if condition is None and self.condition_size == 0:
            return based
        if condition is None or self.condition_size == 0:
            raise ValueError(_condition_error(self, condition))
        _check_rows(condition, self.condition_size, "condition")
        standardization = Standardization.fit(condition, "condition")
        return eqx.tree_at(lambda n: n.condition_standardization, based, standardization)

    def _base_of(self, data: Array, noise_scale: float) -> Any:
        return GaussianBase.fit(data, noise_scale, self.columns)

    def _check_event(self, x: Array) -> None:
        if jnp.shape(x) != (self.in_size,):
            raise ValueError(
                f"{type(self).__name__} takes one event of shape ({self.in_size},), got "
                f"{jnp.shape(x)}; evaluate a batch with jax.vmap(network)(x)."
            )

    def _standard_condition(self, condition: Array | None) -> Array | None:
        if self.condition_standardization is None and condition is None:
            return None
        if (
            condition is None
            or self.condition_standardization is None
            or jnp.shape(condition) != (self.condition_size,)
        ):
            raise ValueError(_condition_error(self, condition))
        return self.condition_standardization(condition)


def check_columns(columns: Sequence[str] | None, size: int) -> tuple[str, ...] | None:
    """Return names of columns as a tuple, or None where there are none.

    :raises TypeError: not a list of names.
    :raises ValueError: not ``size`` different ones.
    """
    if columns is None:
        return None
    names = tuple(columns)
    if isinstance(columns, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"columns must be a list of names, got {columns!r}.")
    if len(names) != size or len(set(names)) != size:
        raise ValueError(f"columns must be {size} different names, got {list(names)}.")
    return names


def _check_rows(rows: Array, size: int, name: str) -> None:
    if jnp.ndim(rows) != 2 or jnp.shape(rows)[1] != size:
        raise ValueError(
            f"{name} must have the shape (n, {size}), one row per example; got {jnp.shape(rows)}."
        )


def _condition_error(network: VectorNetwork, condition: Array | None) -> str:
    name = type(network).__name__
    got = "none" if condition is None else f"one of shape {jnp.shape(condition)}"
    if network.condition_size == 0:
        return (
            f"this {name} takes no condition, got {got}; build it with condition_size=..., "
            "or leave the condition out."
        )
    return (
        f"this {name} takes a condition of shape ({network.condition_size},) per event, got "
        f"{got}; evaluate a batch with jax.vmap(network)(x, condition)."
    )
