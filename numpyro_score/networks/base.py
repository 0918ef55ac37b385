"""The Gaussian that a network's tails follow, and the standardization of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._precision import exact_products
from numpyro_score._typing import Array, Shape
from numpyro_score.networks._frozen import Frozen

_LISTED = 8


class Standardization(Frozen):
    """Shift and scale that give each column mean 0 and variance 1; not trained.

    :param mean: shape ``(size,)``.
    :param scale: shape ``(size,)``, positive.
    """

    mean: Array
    scale: Array

    def __call__(self, x: Array) -> Array:
        """Return ``(x - mean) / scale``, of the shape of ``x``."""
        mean, scale = jax.lax.stop_gradient((self.mean, self.scale))
        return (x - mean) / scale

    @staticmethod
    def identity(size: int) -> Standardization:
        """Return the standardization that changes nothing."""
        return Standardization(jnp.zeros(size), jnp.ones(size))

    @staticmethod
    def fit(data: Array, name: str) -> Standardization:
        """Return the standardization of the columns of ``data``, shape ``(n, size)``.

        :raises ValueError: a column is constant; the message says which.
        """
        rows = np.asarray(data, dtype=np.float64)
        mean, variance = rows.mean(0), rows.var(0)
        _refuse_constant(rows, variance, name, "drop them")
        return Standardization(_as_jax(mean), _as_jax(np.sqrt(variance)))


class GaussianBase(Frozen):
    r"""A Gaussian :math:`N(\mu, P^{-1})` that no training changes.

    Its energy :math:`\tfrac12 (x-\mu)^\top P (x-\mu)` outgrows a network of linear growth in
    every direction, so that the sum of both is the energy of a proper density, whatever the
    weights.

    :param standardization: mean :math:`\mu` and scale per column.
    :param whitening: lower triangular :math:`W` of shape ``(d, d)`` with :math:`P = W^\top W`.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.networks import GaussianBase
    >>> base = GaussianBase.standard(2)
    >>> float(base.energy(jnp.array([3.0, 4.0])))
    12.5
    """

    standardization: Standardization
    whitening: Array

    @staticmethod
    def standard(size: int) -> GaussianBase:
        """Return the standard normal in ``size`` dimensions."""
        return GaussianBase(Standardization.identity(size), jnp.eye(size))

    @staticmethod
    def fit(
        data: Array, noise_scale: float = 0.0, columns: Sequence[str] | None = None
    ) -> GaussianBase:
        r"""Fit mean and covariance to data that is blurred by normal noise.

        :param data: finite array of shape ``(n, d)``.
        :param noise_scale: standard deviation :math:`\sigma` of the noise, in units of the data;
            the covariance is that of the data plus :math:`\sigma^2 I`.
        :param columns: names of the columns, for messages.
        :return: the fitted base.
        :raises ValueError: the covariance has no inverse; the message names the columns.
        """
        rows = np.asarray(data, dtype=np.float64)
        size = rows.shape[1]
        mean = rows.mean(0)
        covariance = np.cov(rows, rowvar=False, bias=True).reshape(size, size)
        covariance += noise_scale**2 * np.eye(size)
        scale = np.sqrt(np.diag(covariance))
        if noise_scale == 0:
            remedy = "drop them or give a noise_scale above 0"
            _refuse_constant(rows, scale**2, "data", remedy, columns)
        remedy = "larger noise_scale" if noise_scale > 0 else "noise_scale above 0"
        _refuse_dependent(covariance / np.outer(scale, scale), len(rows), remedy, columns)
        # float64 on the host: a float32 factor of an ill-conditioned covariance may not exist.
        whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        return GaussianBase(Standardization(_as_jax(mean), _as_jax(scale)), _as_jax(whitening))

    @property
    def mean(self) -> Array:
        """The mean, shape ``(d,)``."""
        return self.standardization.mean

    @property
    def scale(self) -> Array:
        """The standard deviation of each column, shape ``(d,)``."""
        return self.standardization.scale

    @property
    @exact_products
    def precision(self) -> Array:
        """The inverse covariance, shape ``(d, d)``."""
        return self.whitening.T @ self.whitening

    @property
    def log_det(self) -> Array:
        """Log of the determinant of the whitening, shape ``()``."""
        return jnp.sum(jnp.log(jnp.diag(self.whitening)))

    @property
    def log_normalizer(self) -> Array:
        """Log ∫ exp(-energy), shape ``()``."""
        return 0.5 * len(self.mean) * jnp.log(2 * jnp.pi) - self.log_det

    @exact_products
    def _whiten(self, x: Array) -> tuple[Array, Array]:
        mean, whitening = jax.lax.stop_gradient((self.mean, self.whitening))
        return whitening, whitening @ (x - mean)

    def whiten(self, x: Array) -> Array:
        """Return one event of shape ``(d,)`` in coordinates in which the Gaussian is standard."""
        return self._whiten(x)[1]

    def unwhiten(self, white: Array) -> Array:
        """Return the events whose whitened ones are ``white``, of shape ``(..., d)``."""
        mean, whitening = jax.lax.stop_gradient((self.mean, self.whitening))
        columns = white.reshape(-1, white.shape[-1]).T
        rows = jax.scipy.linalg.solve_triangular(whitening, columns, lower=True).T
        return mean + rows.reshape(white.shape)

    def energy(self, x: Array) -> Array:
        """Return the energy of one event ``x`` of shape ``(d,)``: 0 at the mean."""
        return 0.5 * jnp.sum(self.whiten(x) ** 2)

    @exact_products
    def score(self, x: Array) -> Array:
        """Return the score of one event ``x`` of shape ``(d,)``."""
        whitening, white = self._whiten(x)
        return -(white @ whitening)

    def sample(self, rng_key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw from the Gaussian.

        :param rng_key: a random key.
        :param sample_shape: shape of independent draws.
        :return: draws of shape ``sample_shape + (d,)``.
        """
        white = jax.random.normal(rng_key, (len(self.mean), *sample_shape), self.mean.dtype)
        return self.unwhiten(jnp.moveaxis(white, 0, -1))


def fit_event_base(
    network: Any, event_shape: Shape, data: Array, noise_scale: float, condition: Array | None
) -> Any:
    """Return a copy of a network of whole events with a ``base`` fitted to their entries in a row.

    :raises ValueError: a condition, which such networks do not take, or data of another shape.
    """
    refuse_condition(network, condition)
    if jnp.shape(data)[1:] != event_shape:
        raise ValueError(
            f"data must have the shape (n, {', '.join(map(str, event_shape))}), got "
            f"{jnp.shape(data)}."
        )
    base = GaussianBase.fit(data.reshape(len(data), -1), noise_scale)
    return eqx.tree_at(lambda network: network.base, network, base)


def refuse_condition(network: Any, condition: Array | None) -> None:
    """Refuse a condition, which the network would ignore."""
    if condition is not None:
        raise ValueError(f"{type(network).__name__} takes no condition; leave it out.")


def _as_jax(x: np.ndarray) -> Array:
    return jnp.asarray(x, dtype=jnp.result_type(float))


def _list(columns: np.ndarray, names: Sequence[str] | None) -> str:
    shown = ", ".join(str(c) if names is None else repr(names[c]) for c in columns[:_LISTED])
    more = len(columns) - _LISTED
    return shown + (f" and {more} more" if more > 0 else "")


def _refuse_constant(
    rows: np.ndarray,
    variance: np.ndarray,
    name: str,
    remedy: str,
    names: Sequence[str] | None = None,
) -> None:
    # A constant column may get a variance of rounding errors, not exactly 0.
    floor = (np.finfo(np.float32).eps * np.abs(rows).max(0)) ** 2
    constant = np.flatnonzero(variance <= floor)
    if len(constant):
        raise ValueError(
            f"every column of {name} must vary, but {len(constant)} of {len(variance)} are "
            f"constant (columns {_list(constant, names)}); {remedy}."
        )


def _refuse_dependent(
    correlation: np.ndarray, num_rows: int, remedy: str, names: Sequence[str] | None
) -> None:
    size = len(correlation)
    eigenvalues, vectors = np.linalg.eigh(correlation)
    floor = size * np.finfo(np.float32).eps
    if eigenvalues[0] > floor:
        return
    null = np.abs(vectors[:, eigenvalues <= floor]).max(1)
    columns = np.flatnonzero(null > 1e-3)
    raise ValueError(
        f"the covariance of the data must have an inverse, but {num_rows} rows of {size} columns "
        f"give a singular one: columns {_list(columns, names)} are linearly dependent; give a "
        f"{remedy}, drop columns, or bring more rows."
    )
