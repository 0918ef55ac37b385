"""The probability-flow ODE, in fixed steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.networks import score_fn
from numpyro_score.samplers._diffusion import Memoryless, Times, check_events, walk
from numpyro_score.samplers._relative import look
from numpyro_score.sde import SDE, time_grid
from numpyro_score.sde.base import check_sde
from numpyro_score.sde.time_grid import Spacing

FlowMethod: TypeAlias = Literal["dpm-solver++", "heun"]


def probability_flow(
    score: Any,
    sde: SDE,
    x: Array,
    *,
    num_steps: int = 50,
    method: FlowMethod = "dpm-solver++",
    spacing: Spacing = "log noise",
    progress_bar: bool = False,
) -> Array:
    r"""Follow the probability-flow ODE from noise to data.

    :math:`dx = [c x - \tfrac12 g^2 s(x, t)]\, dt` carries draws at ``t_max`` to draws at ``t_min``
    without any noise on the way. With :math:`\hat x = x / \alpha`, :math:`\hat\sigma = \sigma /
    \alpha` and the denoised D of the score it is

    .. math:: d\hat x / d\hat\sigma = (\hat x - D) / \hat\sigma

    ``"heun"`` takes the trapezoidal rule in :math:`\hat\sigma`, two evaluations of the score a
    step; ``"dpm-solver++"`` integrates the linear part exactly and extrapolates D from the step
    before, one evaluation a step. Both are of second order.

    Sources: Y. Song et al., Score-based generative modeling through stochastic differential
    equations, ICLR (2021), equation 13; T. Karras et al. (2022), algorithm 1; C. Lu et al.,
    DPM-Solver++, arXiv 2211.01095 (2022), algorithm 2 (2M).

    :param score: ``score(x, t)`` of one event: an energy or a score, anything that
        :func:`~numpyro_score.networks.as_network` accepts.
    :param sde: the diffusion.
    :param x: draws at ``t_max``, as of ``sde.prior(event_shape)``; shape ``(n, *event_shape)``.
    :param num_steps: number of steps.
    :param method: see above.
    :param spacing: of the times, see :func:`~numpyro_score.sde.time_grid`.
    :param progress_bar: show the steps.
    :return: draws at ``t_min``, of the shape of ``x``.
    :raises FloatingPointError: the score was not finite somewhere; not under ``jit``.
    :raises ValueError: another method, no steps, or particles without an event axis.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.samplers import probability_flow
    >>> from numpyro_score.sde import VP
    >>> x = jax.random.normal(jax.random.key(0), (5, 2))
    >>> y = probability_flow(lambda x, t: -x, VP(), x)  # standard normal data stay where they are
    >>> bool(jnp.allclose(x, y, atol=1e-2))
    True
    """
    check_sde(sde)
    check_events(x)
    if method not in get_args(FlowMethod):
        raise ValueError(f"method must be one of {get_args(FlowMethod)}, got {method!r}.")
    stepper = Heun(sde) if method == "heun" else DPMSolver(sde)
    times = time_grid(sde, num_steps, spacing=spacing)
    unused = jax.random.key(0)
    return walk(unused, stepper, score_fn(score, jnp.shape(x)[1:]), x, times, progress_bar)


@dataclass(frozen=True)
class Heun(Memoryless):
    """The trapezoidal rule in σ / α."""

    sde: SDE

    def step(
        self, rng_key: Array, x: Array, memory: tuple, times: Times, score: Callable[..., Array]
    ) -> tuple[Array, tuple]:
        """Return particles at ``times.next``."""
        here = look(x, times.now, self.sde, score)
        scale = self.sde.mean_scale(times.next)
        noise = self.sde.noise_scale(times.next)
        slope = (here.x - here.denoised) / here.noise
        guess = here.x + (noise - here.noise) * slope
        there = look(guess * scale, times.next, self.sde, score)
        average = 0.5 * (slope + (guess - there.denoised) / noise)
        return scale * (here.x + (noise - here.noise) * average), ()


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++(2M): exponential in log σ̂, with D extrapolated from the step before."""

    sde: SDE

    def init(self, x: Array) -> tuple[Array, Array]:
        """Return what there was before the first step: nothing, an infinite step away."""
        return jnp.zeros_like(x), jnp.full((), jnp.inf, x.dtype)

    def step(
        self,
        rng_key: Array,
        x: Array,
        memory: tuple[Array, Array],
        times: Times,
        score: Callable[..., Array],
    ) -> tuple[Array, tuple[Array, Array]]:
        """Return particles at ``times.next``, D here, and how far the step went."""
        here = look(x, times.now, self.sde, score)
        scale = self.sde.mean_scale(times.next)
        ratio = self.sde.noise_scale(times.next) / here.noise
        length = -jnp.log(ratio)
        before, last_length = memory
        denoised = here.denoised + (here.denoised - before) * length / (2 * last_length)
        return scale * (ratio * here.x + (1 - ratio) * denoised), (here.denoised, length)
