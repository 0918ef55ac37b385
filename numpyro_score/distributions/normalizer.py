"""The normalizer of a learned density, estimated."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int, is_concrete
from numpyro_score._typing import Array
from numpyro_score.distributions._support import reference_density
from numpyro_score.distributions.base import LearnedDistribution
from numpyro_score.networks import DensityNetwork
from numpyro_score.samplers.annealed_importance import Start, annealed_importance

_FEW = 0.05


class LogNormalizerEstimate(NamedTuple):
    """An estimate of log Z, each of shape ``batch_shape``.

    - **log_normalizer** - log of the mean weight.
    - **standard_error** - of it, by the delta method; it knows nothing of modes that no particle
      found.
    - **ess** - effective number of weights, at most the number of particles.
    """

    log_normalizer: Array
    standard_error: Array
    ess: Array


def estimate_log_normalizer(
    distribution: LearnedDistribution,
    key: Array,
    *,
    num_particles: int = 1_000,
    num_temperatures: int = 200,
    num_moves: int = 2,
) -> LogNormalizerEstimate:
    r"""Estimate log Z of a learned distribution by annealed importance sampling.

    Particles start at draws of the density that the network tilts, where it is one of
    :class:`~numpyro_score.networks.TiltedEnergy`; else at its Gaussian base, where it has one; else
    at a standard normal in the unconstrained space of the support. (A bound, such as that of a VAE,
    is not started at.) They pass through ``num_temperatures`` densities in
    between, moved by MALA. The estimate of Z is unbiased; that of log Z is too low by about half
    its variance. For one condition of a batch after the other it is an estimate each.

    Source: R. M. Neal, Annealed importance sampling, Statistics and Computing 11 (2001).

    :param distribution: an energy or score distribution; a normalizer that it has is not used.
    :param key: a random key.
    :param num_particles: independent weights; the error falls with the root of their number.
    :param num_temperatures: steps from the start to the density; where ``ess`` is small, raise it.
    :param num_moves: MALA steps at each.
    :return: the estimate, for :meth:`LearnedDistribution.with_log_normalizer`. A warning tells
        where less than a twentieth of the weights is effective.
    :raises FloatingPointError: a weight is NaN, or all are zero.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.distributions import EnergyDistribution, estimate_log_normalizer
    >>> d = EnergyDistribution(lambda x: jnp.sum(x**2), (2,))
    >>> estimate = estimate_log_normalizer(d, jax.random.key(0))
    >>> bool(jnp.abs(estimate.log_normalizer - jnp.log(jnp.pi)) < 0.05)
    True
    >>> d.with_log_normalizer(estimate.log_normalizer).normalized
    True
    """
    if not isinstance(distribution, LearnedDistribution):
        raise TypeError(
            "estimate_log_normalizer takes an EnergyDistribution or a ScoreDistribution, got "
            f"{type(distribution).__name__}."
        )
    check_int(num_particles, "num_particles", 2)
    check_int(num_temperatures, "num_temperatures", 1)
    check_int(num_moves, "num_moves", 1)
    log_weights = _log_weights(distribution, key, num_particles, num_temperatures, num_moves)
    if is_concrete(log_weights):
        _check_weights(np.asarray(log_weights))
    total = jax.nn.logsumexp(log_weights, axis=-1)
    ess = jnp.exp(2 * total - jax.nn.logsumexp(2 * log_weights, axis=-1))
    standard_error = jnp.sqrt(jnp.maximum(1 / ess - 1 / num_particles, 0))
    estimate = LogNormalizerEstimate(total - jnp.log(num_particles), standard_error, ess)
    if is_concrete(ess):
        _tell(np.asarray(ess), num_particles)
    return estimate


@partial(jax.jit, static_argnums=(2, 3, 4))
def _log_weights(
    distribution: LearnedDistribution,
    key: Array,
    num_particles: int,
    num_temperatures: int,
    num_moves: int,
) -> Array:
    transform = distribution._standard_coordinates()
    shape = transform.inverse_shape(distribution.event_shape)
    reference = reference_density(distribution.network, distribution.support)
    if reference is not None and reference.is_bound:
        reference = None  # its energy is not that of its draws, and Z would be wrong

    def in_coordinates(log_density: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def logdensity_fn(flat: Array) -> Array:
            v = flat.reshape(shape)
            x = transform(v)
            return log_density(x) + transform.log_abs_det_jacobian(v, x).sum()

        return logdensity_fn

    def start_at(reference: DensityNetwork, *condition: Array) -> Start:
        def sample(key: Array, num: int) -> Array:
            return transform.inv(reference.sample(key, (num,), *condition)).reshape(num, -1)

        return Start(sample, in_coordinates(lambda x: -reference(x, *condition)))

    def weigh(key: Array, log_prob: Callable[[Array], Array], *condition: Array) -> Array:
        return annealed_importance(
            key,
            in_coordinates(log_prob),
            int(np.prod(shape)),
            num_particles=num_particles,
            num_temperatures=num_temperatures,
            num_moves=num_moves,
            start=None if reference is None else start_at(reference, *condition),
        ).log_weights

    return distribution._map_events(weigh, key, ())


def _check_weights(log_weights: np.ndarray) -> None:
    if np.isnan(log_weights).any() or np.isposinf(log_weights).any():
        raise FloatingPointError(
            "a weight is not finite: the log density is NaN or infinite somewhere between the "
            "start and the density. Check the network for NaN, and that the density is proper."
        )
    if np.isneginf(log_weights).all(-1).any():
        raise FloatingPointError(
            "all weights are zero: the log density is -inf wherever the particles start. Check the "
            "support, and the scale of the data against the Gaussian base."
        )


def _tell(ess: np.ndarray, num_particles: int) -> None:
    if ess.min(initial=num_particles) < _FEW * num_particles:
        warnings.warn(
            f"only {ess.min():.0f} of {num_particles} weights are effective, so that the estimate "
            "of log Z, and its standard error, are not to be trusted; raise num_temperatures or "
            "num_moves.",
            stacklevel=3,
        )
