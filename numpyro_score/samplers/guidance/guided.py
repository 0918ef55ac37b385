"""The reverse diffusion with the score of the posterior, as a guidance guesses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from numpyro_score._typing import Array, Shape
from numpyro_score.networks import score_fn
from numpyro_score.samplers._diffusion import check_events
from numpyro_score.samplers.guidance.base import Guidance, check_guidance, linearize
from numpyro_score.samplers.guidance.measurement import Measurement, check_measurement
from numpyro_score.samplers.guidance.moment_matching import MomentMatching
from numpyro_score.samplers.reverse_sde import ReverseMethod, reverse_sde
from numpyro_score.sde import SDE
from numpyro_score.sde.base import check_sde
from numpyro_score.sde.time_grid import Spacing

_GUIDANCE = MomentMatching()


def guided_score(
    score: Any,
    sde: SDE,
    measurement: Measurement,
    event_shape: Shape,
    *,
    guidance: Guidance = _GUIDANCE,
) -> Callable[[Array, Array], Array]:
    r"""Return the score of events with noise, given a measurement of them without.

    .. math:: \nabla \log p_t(x \mid y) = s(x, t) + \nabla \log p(y \mid x_t = x)

    where the guidance guesses the last term. *Use it* with any sampler of diffusions, such as
    :func:`~numpyro_score.samplers.probability_flow`; *do not* as the score of a density, which it
    is only where the guidance is exact.

    Sources: those of the guidance; Y. Song et al., Score-based generative modeling through
    stochastic differential equations, ICLR (2021), equation 14, for the sum.

    :param score: ``score(x, t)`` of one event: an energy or a score, anything that
        :func:`~numpyro_score.networks.as_network` accepts.
    :param sde: the diffusion.
    :param measurement: of an event without noise.
    :param event_shape: shape of one event.
    :param guidance: by default :class:`~numpyro_score.samplers.guidance.MomentMatching`.
    :return: ``score(x, t)`` of one event, of the shape of ``x``.
    :raises TypeError: an argument of another kind.
    :raises ValueError: ``forward`` does not return the shape of ``y``.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.samplers.guidance import Measurement, guided_score
    >>> from numpyro_score.sde import VP
    >>> measurement = Measurement(lambda x: x, jnp.array([2.0, -2.0]), noise_std=1.0)
    >>> guided = guided_score(lambda x, t: -x, VP(), measurement, (2,))  # standard normal data
    >>> value = guided(jnp.array([1.0, 1.0]), 0.001)
    >>> bool(jnp.allclose(value, jnp.array([0.0, -4.0]), atol=0.01))
    True
    """
    check_sde(sde)
    check_guidance(guidance)
    network = score_fn(score, event_shape)
    check_measurement(measurement, event_shape, jnp.result_type(float))

    def posterior(x: Array, t: Array) -> Array:
        at = linearize(x, t, sde, network, measurement)
        return at.score + guidance.likelihood(at).score / sde.mean_scale(t)

    return posterior


def guided_diffusion(
    rng_key: Array,
    score: Any,
    sde: SDE,
    measurement: Measurement,
    x: Array,
    *,
    guidance: Guidance = _GUIDANCE,
    num_steps: int = 200,
    method: ReverseMethod = "exponential",
    num_corrections: int = 0,
    correction_scale: float = 0.16,
    spacing: Spacing = "log noise",
    progress_bar: bool = False,
) -> Array:
    r"""Run a diffusion backwards from noise to data that fit a measurement.

    :func:`~numpyro_score.samplers.reverse_sde` with the score of :func:`guided_score`. A step of
    ``"exponential"`` evaluates the score and the guidance twice.

    *Use it* for draws that explain ``y``, from a score that was trained without it. *Do not* where
    their spread or the shares of modes must be those of the posterior, unless the guidance is exact
    for the data: :func:`~numpyro_score.samplers.guidance.twisted_diffusion` is right in the limit
    of many particles, and says how many of them count.

    Source: that of the guidance.

    :param rng_key: a random key.
    :param score: ``score(x, t)`` of one event: an energy or a score, anything that
        :func:`~numpyro_score.networks.as_network` accepts.
    :param sde: the diffusion.
    :param measurement: of an event without noise.
    :param x: draws at ``t_max``, as of ``sde.prior(event_shape)`` or of
        :func:`~numpyro_score.samplers.last_normal`; shape ``(n, *event_shape)``.
    :param guidance: by default :class:`~numpyro_score.samplers.guidance.MomentMatching`.
    :param num_steps: number of steps.
    :param method: see :func:`~numpyro_score.samplers.reverse_sde`, as what follows.
    :param num_corrections: Langevin steps after each.
    :param correction_scale: the size of a correction relative to the noise.
    :param spacing: of the times.
    :param progress_bar: show the steps.
    :return: draws at ``t_min``, of the shape of ``x``.
    :raises FloatingPointError: the score was not finite somewhere; not under ``jit``.
    :raises TypeError: an argument of another kind.
    :raises ValueError: numbers out of range, particles without an event axis, or a ``forward`` that
        does not return the shape of ``y``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.samplers.guidance import Measurement, guided_diffusion
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.01, 20.0)
    >>> score = lambda x, t: -x / (1 + sde.marginal_std(t) ** 2)  # N(0, I) at t = 0
    >>> x = sde.prior((2,)).sample(jax.random.key(0), (2000,))
    >>> measurement = Measurement(lambda x: x[:1], jnp.array([2.0]), noise_std=1.0)
    >>> draws = guided_diffusion(jax.random.key(1), score, sde, measurement, x, num_steps=50)
    >>> bool(jnp.allclose(draws.mean(0), jnp.array([1.0, 0.0]), atol=0.1))
    True
    >>> bool(jnp.allclose(draws.var(0), jnp.array([0.5, 1.0]), atol=0.15))
    True
    """
    check_sde(sde)
    check_events(x)
    guided = guided_score(score, sde, measurement, jnp.shape(x)[1:], guidance=guidance)

    return reverse_sde(
        rng_key,
        guided,
        sde,
        x,
        num_steps=num_steps,
        method=method,
        num_corrections=num_corrections,
        correction_scale=correction_scale,
        spacing=spacing,
        progress_bar=progress_bar,
    )
