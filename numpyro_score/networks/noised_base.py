"""The Gaussian that data follow at every level of noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_positive
from numpyro_score._precision import exact_products
from numpyro_score._typing import Array
from numpyro_score.networks._frozen import Frozen
from numpyro_score.networks.base import GaussianBase, Standardization


class NoisedGaussian(Frozen):
    r"""The Gaussians :math:`N(\mu, C + \sigma^2 I)` of all noise levels σ; not trained.

    Of Gaussian data this is the exact answer at every level, which leaves to a network on top of
    it only what is not Gaussian.

    :param mean: :math:`\mu`, shape ``(d,)``.
    :param variances: of C along its principal axes, shape ``(d,)``; one may be 0.
    :param axes: principal axes of C in the columns, shape ``(d, d)``.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.networks import NoisedGaussian
    >>> base = NoisedGaussian.standard(2)
    >>> base.score(jnp.array([4.0, 8.0]), jnp.sqrt(3.0)).tolist()
    [-1.0, -2.0]
    """

    mean: Array
    variances: Array
    axes: Array

    @staticmethod
    def standard(size: int) -> NoisedGaussian:
        """Return that of standard normal data in ``size`` dimensions."""
        return NoisedGaussian(jnp.zeros(size), jnp.ones(size), jnp.eye(size))

    @staticmethod
    def fit(data: Array) -> NoisedGaussian:
        """Return that of data without noise, shape ``(n, d)``.

        Columns may be constant or depend on each other: with any noise, the covariance has an
        inverse.

        :raises ValueError: all columns are constant.
        """
        rows = np.asarray(data, np.float64)
        if not rows.var(0).any():
            raise ValueError("data must vary, but every column is constant.")
        covariance = np.cov(rows, rowvar=False, bias=True).reshape(rows.shape[1], -1)
        variances, axes = np.linalg.eigh(covariance)
        constants = (rows.mean(0), np.maximum(variances, 0.0), axes)
        return NoisedGaussian(*(jnp.asarray(x, jnp.result_type(float)) for x in constants))

    @property
    def data_scale(self) -> Array:
        """The standard deviation of the data over all columns, shape ``()``."""
        return jnp.sqrt(jnp.mean(jax.lax.stop_gradient(self.variances)))

    @exact_products
    def whiten(self, x: Array, noise_scale: Array) -> Array:
        """Return ``x`` along the principal axes, in standard deviations at this level."""
        mean, variances, axes = self._constants()
        return ((x - mean) @ axes) / jnp.sqrt(variances + noise_scale**2)

    def energy(self, x: Array, noise_scale: Array) -> Array:
        """Return the energy of one event ``x`` of shape ``(d,)``: 0 at the mean."""
        return 0.5 * jnp.sum(self.whiten(x, noise_scale) ** 2)

    @exact_products
    def score(self, x: Array, noise_scale: Array) -> Array:
        """Return the score of one event ``x`` of shape ``(d,)``."""
        _, variances, axes = self._constants()
        return -axes @ (self.whiten(x, noise_scale) / jnp.sqrt(variances + noise_scale**2))

    @exact_products
    def correct(self, direction: Array, noise_scale: Array) -> Array:
        r"""Return a correction to the score, from numbers of order 1.

        Along an axis with variance λ it is :math:`\sqrt{1/\sigma^2 - 1/(\lambda + \sigma^2)}` times
        the number, as large as what the score of data may differ from that of the Gaussian. For
        one λ these are the scalings of Karras et al. (2022), table 1.

        :param direction: shape ``(d,)``.
        """
        _, variances, axes = self._constants()
        scale = jnp.sqrt(variances / (variances + noise_scale**2)) / noise_scale
        return axes @ (scale * direction)

    def at(self, noise_scale: float) -> GaussianBase:
        """Return the Gaussian of one level, a number above 0."""
        check_positive(noise_scale, "noise_scale")
        mean, variances, axes = self._constants()
        std = jnp.sqrt(variances + noise_scale**2)
        # W of P = WᵀW without the covariance, whose float32 inverse may have no digits left. QR
        # gives an upper triangle; the order of the columns turned round makes it a lower one.
        upper = jnp.linalg.qr((axes / std).T[:, ::-1], mode="r")
        lower = upper[::-1, ::-1]
        whitening = lower * jnp.sign(jnp.diag(lower))[:, None]
        scale = jnp.sqrt(jnp.sum((axes * std) ** 2, axis=1))
        return GaussianBase(Standardization(mean, scale), whitening)

    def _constants(self) -> tuple[Array, Array, Array]:
        constants: tuple[Array, Array, Array] = jax.lax.stop_gradient(
            (self.mean, self.variances, self.axes)
        )
        return constants
