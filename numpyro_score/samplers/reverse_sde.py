"""The reverse diffusion, from noise to data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from numpyro_score._checks import check_int, check_positive
from numpyro_score._typing import Array
from numpyro_score.networks import score_fn
from numpyro_score.samplers._diffusion import Memoryless, Times, check_events, walk
from numpyro_score.samplers._relative import Relative, look
from numpyro_score.sde import SDE, time_grid
from numpyro_score.sde.base import check_sde
from numpyro_score.sde.time_grid import Spacing

ReverseMethod: TypeAlias = Literal["exponential", "euler-maruyama"]


def reverse_sde(
    rng_key: Array,
    score: Any,
    sde: SDE,
    x: Array,
    *,
    num_steps: int = 200,
    method: ReverseMethod = "exponential",
    num_corrections: int = 0,
    correction_scale: float = 0.16,
    spacing: Spacing = "log noise",
    progress_bar: bool = False,
) -> Array:
    r"""Run a diffusion backwards from noise to data.

    :math:`dx = [c x - g^2 s(x, t)]\, dt + g\, d\bar w` carries draws at ``t_max`` to draws at
    ``t_min``. ``"euler-maruyama"`` takes it as it is: one evaluation of the score a step, and of
    first order. ``"exponential"`` integrates what is linear in it exactly: two evaluations a step,
    and of second order in the law of the draws.

    After each step, ``num_corrections`` Langevin steps :math:`x + \varepsilon s + \sqrt{2
    \varepsilon} \xi` with :math:`\varepsilon = 2 (r \sigma)^2` bring particles nearer to the
    marginal of their time: with any, this is the predictor-corrector method, at one more evaluation
    for each. Its published rule divides by the norm of the score, which is about 1 / σ.

    Sources: B. D. O. Anderson, Reverse-time diffusion equation models, Stochastic Processes and
    their Applications 12 (1982); Y. Song et al. (2021), equation 6, algorithms 2 to 5 and, for
    ancestral sampling, appendix F; its flow is here taken by DPM-Solver++(2S) of C. Lu et al.,
    arXiv 2211.01095 (2022), algorithm 1.

    :param rng_key: a random key.
    :param score: ``score(x, t)`` of one event: an energy or a score, anything that
        :func:`~numpyro_score.networks.as_network` accepts.
    :param sde: the diffusion.
    :param x: draws at ``t_max``, as of ``sde.prior(event_shape)``; shape ``(n, *event_shape)``.
    :param num_steps: number of steps.
    :param method: see above.
    :param num_corrections: Langevin steps after each.
    :param correction_scale: r, the size of a correction relative to the noise.
    :param spacing: of the times, see :func:`~numpyro_score.sde.time_grid`.
    :param progress_bar: show the steps.
    :return: draws at ``t_min``, of the shape of ``x``.
    :raises FloatingPointError: the score was not finite somewhere; not under ``jit``.
    :raises ValueError: another method, numbers out of range, or particles without an event axis.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.samplers import reverse_sde
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.01, 50.0)
    >>> score = lambda x, t: (3.0 - x) / (1.0 + sde.marginal_std(t) ** 2)  # N(3, 1) at t = 0
    >>> x = sde.prior((1,)).sample(jax.random.key(0), (4000,))
    >>> y = reverse_sde(jax.random.key(1), score, sde, x, num_steps=50)
    >>> bool(abs(y.mean() - 3) < 0.1) and bool(abs(y.std() - 1) < 0.05)
    True
    """
    check_sde(sde)
    check_events(x)
    check_int(num_corrections, "num_corrections", 0)
    check_positive(correction_scale, "correction_scale")
    if method not in get_args(ReverseMethod):
        raise ValueError(f"method must be one of {get_args(ReverseMethod)}, got {method!r}.")
    predictor = Exponential(sde) if method == "exponential" else EulerMaruyama(sde)
    stepper = Corrected(predictor, sde, num_corrections, correction_scale)
    times = time_grid(sde, num_steps, spacing=spacing)
    return walk(rng_key, stepper, score_fn(score, jnp.shape(x)[1:]), x, times, progress_bar)


@dataclass(frozen=True)
class EulerMaruyama(Memoryless):
    """The reverse diffusion in steps of t."""

    sde: SDE

    def step(
        self, rng_key: Array, x: Array, memory: tuple, times: Times, score: Callable[..., Array]
    ) -> tuple[Array, tuple]:
        """Return particles at ``times.next``."""
        length, diffusion = times.now - times.next, self.sde.diffusion(times.now)
        drift = diffusion**2 * score(x, times.now) - self.sde.drift(x, times.now)
        noise = jax.random.normal(rng_key, x.shape, x.dtype)
        return x + length * drift + diffusion * jnp.sqrt(length) * noise, ()


@dataclass(frozen=True)
class Exponential(Memoryless):
    r"""The flow down to less noise than is wanted, and noise on top.

    From :math:`\hat\sigma` the flow goes to :math:`\hat\sigma_n^2 / \hat\sigma`, as far below the
    next level :math:`\hat\sigma_n` as that is below this one, in one step of the exponential
    midpoint rule, whose midpoint is the next level itself. An exact flow would give exact draws.
    """

    sde: SDE

    def step(
        self, rng_key: Array, x: Array, memory: tuple, times: Times, score: Callable[..., Array]
    ) -> tuple[Array, tuple]:
        """Return particles at ``times.next``."""
        here = look(x, times.now, self.sde, score)
        mean, std = self.law(here, times, score)
        noise = jax.random.normal(rng_key, x.shape, x.dtype)
        return self.sde.mean_scale(times.next) * (mean + std * noise), ()

    def law(self, here: Relative, times: Times, score: Callable[..., Array]) -> tuple[Array, Array]:
        """Return mean and standard deviation of x / α at ``times.next``."""
        level = self.sde.noise_scale(times.next)
        ratio = level / here.noise
        middle = ratio * here.x + (1 - ratio) * here.denoised
        denoised = look(
            self.sde.mean_scale(times.next) * middle, times.next, self.sde, score
        ).denoised
        mean = ratio**2 * here.x + (1 - ratio**2) * denoised
        return mean, level * jnp.sqrt(1 - ratio**2)


@dataclass(frozen=True)
class Corrected:
    """Langevin steps after those of another method."""

    predictor: EulerMaruyama | Exponential
    sde: SDE
    num_steps: int
    scale: float

    def init(self, x: Array) -> Any:
        """Return the memory of the other method."""
        return self.predictor.init(x)

    def step(
        self, rng_key: Array, x: Array, memory: Any, times: Times, score: Callable[..., Array]
    ) -> tuple[Array, Any]:
        """Return particles at ``times.next``."""
        key, *keys = jax.random.split(rng_key, 1 + self.num_steps)
        x, memory = self.predictor.step(key, x, memory, times, score)
        step_size = 2 * (self.scale * self.sde.marginal_std(times.next)) ** 2
        for key in keys:
            noise = jax.random.normal(key, x.shape, x.dtype)
            x = x + step_size * score(x, times.next) + jnp.sqrt(2 * step_size) * noise
        return x, memory
