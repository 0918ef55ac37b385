"""Time by noise: when a diffusion has reached a noise level."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array
from numpyro_score.sde.base import SDE, check_sde

_BISECTIONS = 40


def time_of(sde: SDE, noise_scale: Array | float) -> Array:
    r"""Return the time at which :math:`\sigma(t) / \alpha(t)` is ``noise_scale``.

    The variable :math:`x_t / \alpha(t)` is the data with noise of that standard deviation, so that
    diffusions of any kind share one scale of noise, in units of the data.

    :param sde: a diffusion, whose σ/α grows with time.
    :param noise_scale: noise levels of any shape.
    :return: times of that shape; ``t_min`` below the first noise, ``t_max`` above the last.
    :raises TypeError: ``sde`` is none.

    >>> from numpyro_score.sde import VE, time_of
    >>> time_of(VE(0.1, 10.0), 1.0).round(4).item()
    0.5
    """
    check_sde(sde)
    if not is_concrete(noise_scale):
        return _bisect(sde, noise_scale)
    # A number is a number in a model that is being traced, too.
    with jax.ensure_compile_time_eval():
        return _bisect(sde, noise_scale)


def _bisect(sde: SDE, noise_scale: Array | float) -> Array:
    noise_scale = jnp.asarray(noise_scale, float)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        before = sde.noise_scale(middle) < noise_scale
        return jnp.where(before, middle, low), jnp.where(before, high, middle)

    first, last = jnp.full_like(noise_scale, sde.t_min), jnp.full_like(noise_scale, sde.t_max)
    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (first, last))
    at_most_first = noise_scale <= sde.noise_scale(first)
    return jnp.where(at_most_first, first, 0.5 * (low + high))
