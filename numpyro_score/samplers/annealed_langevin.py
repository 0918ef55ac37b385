"""Langevin dynamics through decreasing noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int, check_positive
from numpyro_score._typing import Array
from numpyro_score.networks import score_fn
from numpyro_score.samplers._diffusion import Memoryless, Times, check_events, walk


def annealed_langevin(
    rng_key: Array,
    score: Any,
    noise_scales: Sequence[float],
    x: Array,
    *,
    step_size: float,
    num_steps: int = 100,
    progress_bar: bool = False,
) -> Array:
    r"""Take Langevin steps at one noise level after the other, from the largest to the smallest.

    At each level :math:`\sigma_i` it takes ``num_steps`` times

    .. math:: x \leftarrow x + \varepsilon_i s(x, \sigma_i) + \sqrt{2 \varepsilon_i}\, \xi,
              \qquad \varepsilon_i = \varepsilon\, \sigma_i^2 / \sigma_L^2

    *Use it* to draw from a network of noise levels, or to start chains in all modes. *Do not* where
    the weights of modes matter: they freeze at the level below which chains no longer cross, and
    the steps are not tested, so that both leave a small bias. :func:`reverse_sde` has none but that
    of its steps.

    Source: Y. Song & S. Ermon, Generative modeling by estimating gradients of the data
    distribution, NeurIPS (2019), algorithm 1, whose step is 2ε.

    :param rng_key: a random key.
    :param score: ``score(x, noise_scale)`` of one event: an energy or a score, anything that
        :func:`~numpyro_score.networks.as_network` accepts.
    :param noise_scales: decreasing noise levels, in units of the data.
    :param x: where to start, of shape ``(n, *event_shape)``; uniform over more than the data.
    :param step_size: ε, the step at the smallest level, in squared units of the data.
    :param num_steps: steps at each level.
    :param progress_bar: show the levels.
    :return: where the particles are in the end, of the shape of ``x``.
    :raises FloatingPointError: the score was not finite somewhere; not under ``jit``.
    :raises ValueError: noise levels that do not decrease, or numbers out of range.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.samplers import annealed_langevin
    >>> score = lambda x, noise_scale: (3.0 - x) / (1.0 + noise_scale**2)
    >>> x = jax.random.uniform(jax.random.key(0), (2000, 1), minval=-8, maxval=8)
    >>> y = annealed_langevin(jax.random.key(1), score, (4.0, 2.0, 1.0, 0.5), x, step_size=0.05)
    >>> bool(abs(y.mean() - 3) < 0.15)
    True
    """
    check_events(x)
    check_positive(step_size, "step_size")
    check_int(num_steps, "num_steps", 1)
    levels = np.asarray(noise_scales, float)
    check_positive(levels, "every one of noise_scales")
    if levels.ndim != 1 or not len(levels) or not np.all(np.diff(levels) < 0):
        raise ValueError(f"noise_scales must be a decreasing list of levels, got {noise_scales}.")
    stepper = Level(step_size, float(levels[-1]), num_steps)
    # A walk takes a step from each entry to the next.
    times = jnp.asarray(np.append(levels[0], levels), x.dtype)
    return walk(rng_key, stepper, score_fn(score, jnp.shape(x)[1:]), x, times, progress_bar)


@dataclass(frozen=True)
class Level(Memoryless):
    """All steps at one noise level."""

    step_size: float
    smallest: float
    num_steps: int

    def step(
        self, rng_key: Array, x: Array, memory: tuple, times: Times, score: Callable[..., Array]
    ) -> tuple[Array, tuple]:
        """Return particles after the steps at ``times.next``, a noise level."""
        step_size = self.step_size * (times.next / self.smallest) ** 2

        def step(x: Array, key: Array) -> tuple[Array, None]:
            noise = jax.random.normal(key, x.shape, x.dtype)
            return x + step_size * score(x, times.next) + jnp.sqrt(2 * step_size) * noise, None

        return jax.lax.scan(step, x, jax.random.split(rng_key, self.num_steps))[0], ()
