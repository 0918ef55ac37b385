"""What a network may predict, and how one prediction is turned into another."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.sde.base import SDE

Prediction: TypeAlias = Literal["score", "noise", "denoised", "velocity"]


def convert(
    value: Array, x: Array, t: Array, sde: SDE, *, source: Prediction, target: Prediction
) -> Array:
    r"""Turn what a network predicts at :math:`x_t = \alpha x_0 + \sigma \varepsilon` into another.

    ============  =====================================  ==================================
    prediction    what it expects, given :math:`x_t`     from the denoised D
    ============  =====================================  ==================================
    ``denoised``  :math:`x_0`                            D
    ``noise``     :math:`\varepsilon`                    :math:`(x - \alpha D)/\sigma`
    ``score``     :math:`-\varepsilon / \sigma`          :math:`(\alpha D - x)/\sigma^2`
    ``velocity``  :math:`\alpha \varepsilon-\sigma x_0`  from noise and D
    ============  =====================================  ==================================

    Sources: B. Efron, Tweedie's formula and selection bias, Journal of the American Statistical
    Association 106 (2011), for the score; T. Salimans & J. Ho, Progressive distillation for fast
    sampling of diffusion models, ICLR (2022), for the velocity.

    :param value: what was predicted at ``x``, of the same shape.
    :param x: noised events.
    :param t: their time, a number, or an array that broadcasts against ``x``.
    :param sde: the diffusion.
    :param source: what ``value`` is.
    :param target: what to return.
    :return: shape of ``x``.
    :raises ValueError: another prediction, or a shape that differs from that of ``x``.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.sde import VE, convert
    >>> sde = VE(1.0, 4.0)  # σ = 2 at t = 1/2
    >>> x = jnp.array([3.0, -1.0])
    >>> convert(-x / 5, x, 0.5, sde, source="score", target="denoised").round(3)
    Array([ 0.6, -0.2], dtype=float32)
    """
    for name, kind in (("source", source), ("target", target)):
        if kind not in get_args(Prediction):
            raise ValueError(f"{name} must be one of {get_args(Prediction)}, got {kind!r}.")
    if jnp.shape(value) != jnp.shape(x):
        raise ValueError(f"value must have the shape of x, {jnp.shape(x)}, got {jnp.shape(value)}.")
    if source == target:
        return value
    scale, std = sde.mean_scale(t), sde.marginal_std(t)
    denoised = _to_denoised(value, x, scale, std, source)
    if target == "denoised":
        return denoised
    noise = (x - scale * denoised) / std
    if target == "noise":
        return noise
    return -noise / std if target == "score" else scale * noise - std * denoised


def _to_denoised(value: Array, x: Array, scale: Array, std: Array, source: Prediction) -> Array:
    if source == "denoised":
        return value
    if source == "noise":
        return (x - std * value) / scale
    if source == "score":
        return (x + std**2 * value) / scale
    return (scale * x - std * value) / (scale**2 + std**2)
