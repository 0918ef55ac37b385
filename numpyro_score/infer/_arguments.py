"""Arguments of the kernels, checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int, check_positive
from numpyro_score._typing import Array
from numpyro_score.infer._whitening import (
    DenseWhitening,
    DiagonalWhitening,
    LowRankWhitening,
    Whitening,
)


def check_target(model: Callable[..., Any] | None, potential_fn: Callable[..., Any] | None) -> None:
    """Refuse anything but one of a model and a potential."""
    if (model is None) == (potential_fn is None):
        raise ValueError("Only one of `model` or `potential_fn` must be specified.")
    if not callable(model if model is not None else potential_fn):
        name = "model" if model is not None else "potential_fn"
        raise TypeError(f"{name} must be callable.")


def check_tuning(
    step_size: float,
    inverse_mass_matrix: Array | None,
    dense_mass: bool,
    max_rank: int | None,
    target_accept_prob: float,
    adaptation: str,
) -> None:
    """Refuse a step size, metric, target or way to adapt that no kernel can work with."""
    check_positive(step_size, "step_size")
    if not isinstance(dense_mass, bool):
        raise TypeError(
            "dense_mass must be True or False, got "
            f"{dense_mass!r}; a metric by blocks of sites is not supported by this kernel."
        )
    if max_rank is not None:
        check_int(max_rank, "max_rank", 1)
        if dense_mass:
            raise ValueError("A metric is dense or of low rank: give dense_mass=True or max_rank.")
    check_probability(target_accept_prob, "target_accept_prob")
    if adaptation not in ("per-chain", "pooled"):
        raise ValueError(f'adaptation must be "per-chain" or "pooled", got {adaptation!r}.')
    if inverse_mass_matrix is not None:
        _check_metric(np.asarray(inverse_mass_matrix))


def check_probability(value: float, name: str) -> None:
    """Refuse what is not strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}.")


def _check_metric(metric: np.ndarray) -> None:
    if metric.ndim == 1:
        if not (np.isfinite(metric) & (metric > 0)).all():
            raise ValueError("A diagonal inverse_mass_matrix must be finite and above 0.")
        return
    if metric.ndim != 2 or metric.shape[0] != metric.shape[1]:
        raise ValueError(
            "inverse_mass_matrix must be a vector of variances (d,) or a covariance (d, d), got "
            f"the shape {metric.shape}."
        )
    symmetric = np.allclose(metric, metric.T, rtol=1e-4)
    if not symmetric or np.linalg.eigvalsh(metric).min() <= 0:
        raise ValueError("inverse_mass_matrix must be symmetric and positive definite.")


def check_variances(inverse_mass_matrix: Array | None) -> None:
    """Refuse any metric but a diagonal one."""
    if inverse_mass_matrix is None:
        return
    metric = np.asarray(inverse_mass_matrix)
    if metric.ndim == 2 and metric.shape[0] == metric.shape[1]:
        raise ValueError("inverse_mass_matrix must be a vector of variances for this kernel.")
    _check_metric(metric)


def initial_whitening(
    inverse_mass_matrix: Array | None, size: int, dense: bool, max_rank: int | None
) -> Whitening:
    """Return the whitening that the chains start with.

    :param inverse_mass_matrix: variances, a covariance, or None for the identity.
    :param size: number of unconstrained parameters.
    :param dense: whether the metric is a full matrix; another takes the diagonal of a covariance.
    :param max_rank: the largest number of directions of a metric of low rank; None for none.
    """
    metric = np.ones(size) if inverse_mass_matrix is None else np.asarray(inverse_mass_matrix)
    if metric.shape[0] != size:
        raise ValueError(
            f"inverse_mass_matrix is for {metric.shape[0]} parameters, but the model has {size} "
            "unconstrained ones (sites in alphabetical order)."
        )
    dtype = jnp.result_type(float)
    if dense:
        covariance = np.diag(metric) if metric.ndim == 1 else metric
        return DenseWhitening(jnp.asarray(np.linalg.cholesky(covariance), dtype))
    sd = np.sqrt(np.diagonal(metric) if metric.ndim == 2 else metric)
    if max_rank is not None:
        rank = min(max_rank, size)
        return LowRankWhitening(
            jnp.asarray(sd, dtype), jnp.eye(rank, size, dtype=dtype), jnp.ones(rank, dtype)
        )
    return DiagonalWhitening(jnp.asarray(1 / sd, dtype))
