"""The twisted diffusion sampler: guided particles, weighted and resampled on their way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.smc.ess import ess
from blackjax.smc.resampling import systematic

from numpyro_score._typing import Array
from numpyro_score.networks import score_fn
from numpyro_score.samplers._diffusion import Times, check_events, walk_and_remember
from numpyro_score.samplers._relative import Relative
from numpyro_score.samplers.guidance.base import Guidance, check_guidance, linearize
from numpyro_score.samplers.guidance.measurement import Measurement, check_measurement
from numpyro_score.samplers.guidance.moment_matching import MomentMatching
from numpyro_score.samplers.reverse_sde import Exponential
from numpyro_score.sde import SDE, time_grid
from numpyro_score.sde.base import check_sde
from numpyro_score.sde.time_grid import Spacing

_GUIDANCE = MomentMatching()


class Twisted(NamedTuple):
    """Weighted draws of the posterior, and what their weights say of the measurement.

    - **particles** - at ``t_min``, shape ``(n, *event_shape)``; draws of the posterior once they
      are resampled by their weights.
    - **log_weights** - of weights that sum to 1, shape ``(n,)``.
    - **log_evidence** - log p(y) of the diffusion's data; its exponential has no bias.
    - **ess** - how many particles count after each step, shape ``(num_steps,)``. The smallest says
      how far to trust the rest, since a large last one may count copies of a few.
    """

    particles: Array
    log_weights: Array
    log_evidence: Array
    ess: Array


def twisted_diffusion(
    rng_key: Array,
    score: Any,
    sde: SDE,
    measurement: Measurement,
    x: Array,
    *,
    guidance: Guidance = _GUIDANCE,
    num_steps: int = 200,
    ess_threshold: float = 0.5,
    spacing: Spacing = "log noise",
    progress_bar: bool = False,
) -> Twisted:
    r"""Run a diffusion backwards to weighted draws of the posterior given a measurement.

    A step from :math:`x` to :math:`x'` moves by the reverse diffusion p with the likelihood score
    of the guidance in its drift, a proposal q, and multiplies the weight of a particle by

    .. math:: \frac{p(x' \mid x)}{q(x' \mid x)}\,
              \frac{\tilde p(y \mid x')}{\tilde p(y \mid x)}

    where the twist :math:`\tilde p` is the likelihood that the guidance guesses, and after the last
    step p(y | x') itself, of x' as it is. Guesses cancel: what the weighted particles converge to,
    as n grows, is what the steps without guidance draw, times the likelihood. A good guess wastes
    fewer particles. The steps are those of
    :func:`~numpyro_score.samplers.reverse_sde`'s ``"exponential"``, second order in the law of
    draws; each takes one evaluation of the score with its derivatives, and one without. Particles
    are resampled (systematically) before a step where fewer than a share of them count.

    *Use it* where the posterior must be right: shares of modes, spread, evidence, and for a look at
    how far :func:`~numpyro_score.samplers.guidance.guided_diffusion` is off. *Do not* for one
    reconstruction of a large image: n must grow as the guess gets worse, and where the smallest
    ``ess`` is of a few it did not suffice: a log evidence is then mostly too low, and modes are
    missing.

    Source: L. Wu et al., Practical and asymptotically exact conditional sampling in diffusion
    models, NeurIPS (2023), algorithm 1, whose twist is that of ``DPS(step_size=None)``.

    :param rng_key: a random key.
    :param score: ``score(x, t)`` of one event: an energy or a score, anything that
        :func:`~numpyro_score.networks.as_network` accepts.
    :param sde: the diffusion.
    :param measurement: of an event without noise.
    :param x: draws at ``t_max``, as of ``sde.prior(event_shape)`` or of
        :func:`~numpyro_score.samplers.last_normal`; shape ``(n, *event_shape)``.
    :param guidance: twist and proposal; by default
        :class:`~numpyro_score.samplers.guidance.MomentMatching`.
    :param num_steps: number of steps.
    :param ess_threshold: the share of particles that must count, from 0 (never resample) to 1.
    :param spacing: of the times, see :func:`~numpyro_score.sde.time_grid`.
    :param progress_bar: show the steps.
    :return: particles at ``t_min`` and their weights.
    :raises FloatingPointError: the score or ``forward`` was not finite somewhere; not under
        ``jit``.
    :raises TypeError: an argument of another kind.
    :raises ValueError: numbers out of range, particles without an event axis, a ``forward`` that
        does not return the shape of ``y``, or a guidance without a log density.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.samplers.guidance import Measurement, twisted_diffusion
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.01, 20.0)
    >>> score = lambda x, t: -x / (1 + sde.marginal_std(t) ** 2)  # N(0, 1) at t = 0
    >>> x = sde.prior((1,)).sample(jax.random.key(0), (2000,))
    >>> square = Measurement(lambda x: x**2, jnp.array([1.0]), noise_std=0.5)
    >>> draws = twisted_diffusion(jax.random.key(1), score, sde, square, x, num_steps=50)
    >>> weights = jnp.exp(draws.log_weights)
    >>> bool(jnp.abs(weights @ draws.particles) < 0.1)  # as many at -1 as at 1
    True
    >>> bool(jnp.abs(draws.log_evidence + 1.196) < 0.1)
    True
    """
    check_sde(sde)
    check_guidance(guidance)
    check_events(x)
    if not 0 <= ess_threshold <= 1:
        raise ValueError(f"ess_threshold must be from 0 to 1, got {ess_threshold!r}.")
    network = score_fn(score, jnp.shape(x)[1:])
    check_measurement(measurement, jnp.shape(x)[1:], jnp.result_type(x))
    times = time_grid(sde, num_steps, spacing=spacing)
    stepper = TwistedSteps(sde, network, measurement, guidance, ess_threshold, times)

    particles, memory = walk_and_remember(rng_key, stepper, network, x, times, progress_bar)
    total = jax.nn.logsumexp(memory.log_weights)
    log_evidence = memory.log_evidence + total - jnp.log(len(x))
    return Twisted(particles, memory.log_weights - total, log_evidence, memory.ess)


class _View(NamedTuple):
    """What is known of particles at their time: D, the likelihood score and the log twist."""

    denoised: Array
    pull: Array
    log_twist: Array


class _Memory(NamedTuple):
    view: _View
    log_weights: Array
    log_evidence: Array
    ess: Array
    num_taken: Array


@dataclass(frozen=True)
class TwistedSteps:
    """Steps of particles with weights, which are their memory."""

    sde: SDE
    network: Callable[[Array, Array], Array]
    measurement: Measurement
    guidance: Guidance
    ess_threshold: float
    times: Array

    def init(self, x: Array) -> _Memory:
        """Return the memory of particles at the first of the times."""
        view = self._view(x, self.times[0])
        history = jnp.zeros(len(self.times) - 1, x.dtype)
        return _Memory(view, view.log_twist, jnp.zeros((), x.dtype), history, jnp.zeros((), int))

    def step(
        self, rng_key: Array, x: Array, memory: _Memory, times: Times, score: Callable[..., Array]
    ) -> tuple[Array, _Memory]:
        """Return particles at ``times.next``."""
        key_choose, key_move = jax.random.split(rng_key)
        x, memory = self._resample(key_choose, x, memory)
        x, log_ratio = self._propose(key_move, x, memory.view, times, score)
        view = self._view(x, times.next)
        last = memory.num_taken == len(self.times) - 2
        log_twist = jnp.where(last, jax.vmap(self.measurement.log_prob)(x), view.log_twist)
        log_weights = memory.log_weights + log_ratio + log_twist - memory.view.log_twist
        # A particle that has no weight is lost, too, and the walk looks only at where it is.
        x = jnp.where(jnp.isnan(_as_column(log_weights, x)), jnp.nan, x)
        return x, _Memory(
            view._replace(log_twist=log_twist),
            log_weights,
            memory.log_evidence,
            memory.ess.at[memory.num_taken].set(ess(log_weights)),
            memory.num_taken + 1,
        )

    def _view(self, x: Array, t: Array) -> _View:
        def one(x: Array) -> _View:
            at = linearize(x, t, self.sde, self.network, self.measurement)
            likelihood = self.guidance.likelihood(at)
            if likelihood.log_prob is None:
                raise ValueError(
                    f"{self.guidance} has no log density, which weights are made of: leave "
                    "num_iterations None, or take DPS(step_size=None)."
                )
            return _View(at.denoised, likelihood.score, likelihood.log_prob)

        return jax.vmap(one)(x)

    def _resample(self, rng_key: Array, x: Array, memory: _Memory) -> tuple[Array, _Memory]:
        log_weights, num = memory.log_weights, len(x)
        # Not with a NaN among the weights, which then stays with its own particle.
        poor = ess(log_weights) < self.ess_threshold * num
        chosen = systematic(rng_key, jax.nn.softmax(log_weights), num)
        chosen = jnp.where(poor, chosen, jnp.arange(num))
        x, view = jax.tree.map(lambda leaf: leaf[chosen], (x, memory.view))
        log_mean = jax.nn.logsumexp(log_weights) - jnp.log(num)
        return x, memory._replace(
            view=view,
            log_weights=jnp.where(poor, 0.0, log_weights),
            log_evidence=memory.log_evidence + jnp.where(poor, log_mean, 0.0),
        )

    def _propose(
        self, rng_key: Array, x: Array, view: _View, times: Times, score: Callable[..., Array]
    ) -> tuple[Array, Array]:
        """Return particles at ``times.next``, and log p - log q of how they got there."""
        start, noise_now = x / self.sde.mean_scale(times.now), self.sde.noise_scale(times.now)
        here = Relative(start, noise_now, view.denoised)
        mean, std = Exponential(self.sde).law(here, times, score)
        ratio = self.sde.noise_scale(times.next) / noise_now
        shift = (1 - ratio**2) * noise_now**2 * view.pull / std
        noise = jax.random.normal(rng_key, x.shape, x.dtype)
        log_ratio = -jnp.sum((shift * (noise + 0.5 * shift)).reshape(len(x), -1), axis=1)
        moved = self.sde.mean_scale(times.next) * (mean + std * (noise + shift))
        return moved, log_ratio


def _as_column(values: Array, x: Array) -> Array:
    return values.reshape((-1,) + (1,) * (x.ndim - 1))
