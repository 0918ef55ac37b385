"""Whole numbers, such as those of pixels, under a density of real ones."""

from __future__ import annotations

from math import log, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, Shape


def dequantize(rng_key: Array, value: Array, num_levels: int) -> Array:
    """Return real numbers in [0, 1) from whole ones in [0, ``num_levels``), by uniform noise.

    What a density of :class:`Dequantized` is fitted to. Without noise a density of real numbers
    grows without bound at the few values that there are.

    Source: Uria, Murray & Larochelle, RNADE: the real-valued neural autoregressive density
    estimator, NeurIPS (2013), section 4.

    :param rng_key: a random key; for another pass over the data, another key.
    :param value: whole numbers of any shape.
    :param num_levels: how many there are of them, 256 for a byte.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.distributions import dequantize
    >>> x = dequantize(jax.random.key(0), jnp.array([0, 255]), 256)
    >>> (256 * x).astype(int).tolist()
    [0, 255]
    """
    check_int(num_levels, "num_levels", 2)
    value = jnp.asarray(value)
    return _place(value, _points(rng_key, value.shape), num_levels)


def _points(rng_key: Array, shape: Shape) -> Array:
    """Return points of the unit cube."""
    return jax.random.uniform(rng_key, shape, jnp.result_type(float))


def _place(value: Array, points: Array, num_levels: int) -> Array:
    """Return the real numbers at these points of the cubes of whole ones."""
    # In the type of bytes, 255 + 1 is 0.
    value = jnp.asarray(value, jnp.result_type(float))
    # Rounding may not carry it into the next level.
    return jnp.minimum((value + points) / num_levels, jnp.nextafter((value + 1) / num_levels, 0.0))


class Dequantized(dist.Distribution):
    r"""Distribution of whole numbers whose dequantized values have a density.

    The probability of :math:`k` is the integral of the density over a cube, which ``log_prob``
    estimates from ``num_draws`` points :math:`u_j` of the unit cube:

    .. math:: \log P(k) \approx \log \frac1J \sum_j p\left(\frac{k + u_j}{L}\right) - D \log L

    On average over the points this is a lower bound. They are the same at each call and for all
    events, so that ``log_prob`` is a function of an event, whatever stands beside it in a batch. So
    its error does not average out over rows of data; more points close the gap. Draws are those of
    the density, rounded down.

    Source: Theis, van den Oord & Bethge, A note on the evaluation of generative models, ICLR
    (2016), section 3.1; Burda, Grosse & Salakhutdinov, Importance weighted autoencoders, ICLR
    (2016), equation 8.

    :param base_dist: density of :func:`dequantize`'s real numbers, such as a
        :class:`DiffusionDistribution`.
    :param num_levels: L, how many whole numbers there are.
    :param num_draws: J, evaluations of the density for each event.
    :raises TypeError: ``base_dist`` is no distribution.
    :raises ValueError: a number out of range.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_score.distributions import Dequantized
    >>> d = Dequantized(dist.Uniform(jnp.zeros(2), 1.0).to_event(1), num_levels=4)
    >>> round(d.log_prob(jnp.array([3, 0])).item(), 4), round(2 * jnp.log(1 / 4).item(), 4)
    (-2.7726, -2.7726)
    >>> d.bits_per_dimension(jnp.array([3, 0])).item()
    2.0
    """

    pytree_data_fields = ("base_dist",)
    pytree_aux_fields = ("num_levels", "num_draws")

    def __init__(
        self,
        base_dist: dist.Distribution,
        num_levels: int = 256,
        *,
        num_draws: int = 1,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(base_dist, dist.Distribution):
            raise TypeError(f"base_dist must be a distribution, got {base_dist!r}.")
        check_int(num_levels, "num_levels", 2)
        check_int(num_draws, "num_draws", 1)
        self.base_dist = base_dist
        self.num_levels = num_levels
        self.num_draws = num_draws
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Whole numbers from 0 to ``num_levels - 1``."""
        levels = constraints.integer_interval(0, self.num_levels - 1)
        return constraints.independent(levels, self.event_dim) if self.event_dim else levels

    @property
    def has_rsample(self) -> bool:
        """False: draws are discrete."""
        return False

    @validate_sample
    def log_prob(self, value: Array, intermediates: list[Any] | None = None) -> Array:
        """Estimate of the log probability, of shape ``batch_shape`` after broadcasting."""
        keys = jax.random.split(jax.random.key(0), self.num_draws)

        def log_density(key: Array) -> Array:
            # Of one event: with points of their own, rows would differ by where they stand.
            points = _points(key, self.event_shape)
            return self.base_dist.log_prob(_place(value, points, self.num_levels))

        volume = prod(self.event_shape) * log(self.num_levels)
        return jax.nn.logsumexp(jax.lax.map(log_density, keys), 0) - log(self.num_draws) - volume

    def bits_per_dimension(self, value: Array) -> Array:
        """Estimate of the code length of each number, -log₂ P(k) / D; on average not below it."""
        return -self.log_prob(value) / (prod(self.event_shape) * log(2))

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draw whole numbers, of shape ``sample_shape + batch_shape + event_shape``."""
        draws = self.base_dist.sample(key, sample_shape)
        return jnp.clip(jnp.floor(draws * self.num_levels), 0, self.num_levels - 1).astype(int)
