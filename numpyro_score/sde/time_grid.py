"""Times at which a sampler evaluates a score."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.sde.base import SDE
from numpyro_score.sde.noise_level import time_of

Spacing: TypeAlias = Literal["log noise", "karras", "uniform"]

_FINE = 20_001
_ROUNDING = 1e-4
_KARRAS_POWER = 7.0


def time_grid(sde: SDE, num_steps: int, *, spacing: Spacing = "log noise") -> Array:
    r"""Return decreasing times from ``t_max`` to ``t_min``.

    With :math:`\hat\sigma = \sigma / \alpha`, the noise relative to the data: ``"log noise"`` has
    equal steps of :math:`\log \hat\sigma`, ``"karras"`` of :math:`\hat\sigma^{1/7}`, which spends
    more of them at small noise, and ``"uniform"`` of t itself.

    Sources: C. Lu et al., DPM-Solver, NeurIPS (2022), section 3; T. Karras et al., Elucidating the
    design space of diffusion-based generative models, NeurIPS (2022), equation 5.

    :param sde: the diffusion, whose σ / α grows with t.
    :param num_steps: number of steps.
    :param spacing: see above.
    :return: shape ``(num_steps + 1,)``.
    :raises ValueError: another spacing, no step, or a σ / α that does not grow.

    >>> from numpyro_score.sde import VE, time_grid
    >>> VE(0.1, 10.0).marginal_std(time_grid(VE(0.1, 10.0), 2)).round(3)
    Array([10. ,  1. ,  0.1], dtype=float32)
    """
    check_int(num_steps, "num_steps", 1)
    if spacing not in get_args(Spacing):
        raise ValueError(f"spacing must be one of {get_args(Spacing)}, got {spacing!r}.")
    if spacing == "uniform":
        return jnp.linspace(sde.t_max, sde.t_min, num_steps + 1)
    with jax.ensure_compile_time_eval():
        fine = jnp.linspace(sde.t_min, sde.t_max, _FINE)
        level = np.asarray(sde.noise_scale(fine), np.float64)
    # Over a short time neighbours are the same number in single precision, or worse.
    falls = np.any(level < (1 - _ROUNDING) * np.maximum.accumulate(level))
    if falls or level[-1] <= level[0]:
        raise ValueError(
            f"marginal_std / mean_scale of a {type(sde).__name__} must grow with the time from "
            f"t_min = {sde.t_min} to t_max = {sde.t_max}, and does not; choose spacing='uniform'."
        )
    ruler = np.log(level) if spacing == "log noise" else level ** (1 / _KARRAS_POWER)
    marks = np.linspace(ruler[-1], ruler[0], num_steps + 1)
    levels = np.exp(marks) if spacing == "log noise" else marks**_KARRAS_POWER
    with jax.ensure_compile_time_eval():
        times = time_of(sde, jnp.asarray(levels))
        return times.at[0].set(sde.t_max).at[-1].set(sde.t_min)
