"""The log density that the probability flow gives to a point: exact, up to its tolerance."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Literal, TypeAlias, get_args

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array, Shape
from numpyro_score.sde import SDE, convert

Divergence: TypeAlias = Literal["exact", "hutchinson"]

_MAX_STEPS = 4096


def flow_log_density(
    score: Callable[[Array, Array], Array],
    sde: SDE,
    x: Array,
    *,
    data_scale: Array | float = 1.0,
    divergence: Divergence = "exact",
    tolerance: float = 1e-6,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Array:
    r"""Return the log density of one event at ``t_min``, by the probability-flow ODE.

    With :math:`\hat x = x/\alpha`, :math:`\hat\sigma = \sigma/\alpha`, the denoised D, and the mean
    a and scale v of the data, the flow of :math:`y = (\hat x - a) / m`, :math:`m^2 = v^2 +
    \hat\sigma^2`, is

    .. math:: dy / d\hat\sigma
        = \frac1m \Big( \frac{\hat x - D}{\hat\sigma} - \frac{\hat\sigma\, y}{m} \Big), \qquad
        \log p(x) = \log N(y_T; 0, I) - d \log (m \alpha)
        + \int \nabla_y \cdot \frac{dy}{d\hat\sigma} d\hat\sigma

    It stands still for normal data of scale v, so that the solver (Tsit5 with adaptive steps) has
    to follow only what is not normal, and its tolerance is in standard deviations and nats. The
    normal in which it ends is :func:`last_normal`.

    ``"exact"`` takes the trace of the Jacobian, as many derivatives as an event has entries;
    ``"hutchinson"`` one derivative along one random direction of signs, the same at all times and
    at all points: a log density without bias, on average over directions, with an error that no
    tolerance tells.

    Sources: Y. Song et al., Score-based generative modeling through stochastic differential
    equations, ICLR (2021), equation 39 and appendix D.2; W. Grathwohl et al., FFJORD, ICLR (2019),
    for the estimate of the trace.

    :param score: ``score(x, t)`` of one event, of the shape of ``x``.
    :param sde: the diffusion, whose marginal at ``t_max`` is that of normal data.
    :param x: one event.
    :param data_scale: v, in units of the data, one number for all entries.
    :param divergence: see above.
    :param tolerance: of each step.
    :param adjoint: Diffrax's, for derivatives; by default that for reverse mode.
    :return: shape ``()``.
    :raises ValueError: another ``divergence``, an array as ``data_scale``, or a number that is not
        above 0.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.samplers import flow_log_density
    >>> from numpyro_score.sde import VP
    >>> value = flow_log_density(lambda x, t: -x, VP(), jnp.zeros(2))  # standard normal data
    >>> bool(abs(value + jnp.log(2 * jnp.pi)) < 1e-4)
    True
    """
    check_positive(tolerance, "tolerance")
    check_data_scale(data_scale)
    if divergence not in get_args(Divergence):
        raise ValueError(f"divergence must be one of {get_args(Divergence)}, got {divergence!r}.")
    shape, size = jnp.shape(x), prod(jnp.shape(x))
    centre = expect_data(score, sde, shape).ravel()

    def scale(t: Array) -> Array:
        return jnp.sqrt(data_scale**2 + sde.noise_scale(t) ** 2)

    def velocity(t: Array, y: Array) -> Array:
        noise, rate = jax.jvp(sde.noise_scale, (t,), (jnp.ones_like(t),))
        m = scale(t)
        here = ((centre + y * m) * sde.mean_scale(t)).reshape(shape)
        # (x̂ - D) / σ̂ without the difference, of which little would be left at small noise.
        pull = -sde.marginal_std(t) * score(here, t).ravel()
        return rate / m * (pull - noise * y / m)

    probe = jax.random.rademacher(jax.random.key(0), (size,), x.dtype)

    def rates(t: Any, state: tuple[Array, Array], _: Any) -> tuple[Array, Array]:
        value, push = jax.linearize(lambda y: velocity(t, y), state[0])
        if divergence == "exact":
            return value, jnp.trace(jax.vmap(push)(jnp.eye(size, dtype=x.dtype)))
        return value, jnp.sum(probe * push(probe))

    begin, end = (jnp.asarray(t, x.dtype) for t in (sde.t_min, sde.t_max))
    start = (x.ravel() / sde.mean_scale(begin) - centre) / scale(begin)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rates),
        diffrax.Tsit5(),
        begin,
        end,
        None,
        (start, jnp.zeros((), x.dtype)),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        max_steps=_MAX_STEPS,
        throw=False,
    )
    assert solution.ys is not None, "saved at the end"
    y, change = (leaf[0] for leaf in solution.ys)
    log_normal = -0.5 * jnp.sum(y**2) - 0.5 * size * jnp.log(2 * jnp.pi)
    log_density = log_normal + change - size * jnp.log(scale(begin) * sde.mean_scale(begin))
    # A solver that gave up has no answer.
    return jnp.where(solution.result == diffrax.RESULTS.successful, log_density, jnp.nan)


def check_data_scale(data_scale: Array | float) -> None:
    """Refuse a scale that is not one finite number above 0."""
    check_positive(data_scale, "data_scale")
    # With one for each entry the density would be an array, which counts as often in a model.
    if np.ndim(data_scale):
        raise ValueError(
            "data_scale must be one number, a typical standard deviation of the data such as "
            f"float(rows.std()), got an array of shape {np.shape(data_scale)}; for columns of very "
            "different scales, standardize the data first."
        )


def expect_data(score: Callable[[Array, Array], Array], sde: SDE, shape: Shape) -> Array:
    """Return the mean of the data, as the score has it: what it expects behind nothing but noise.

    :param score: ``score(x, t)`` of one event.
    :param shape: that of an event.
    """
    t = jnp.asarray(sde.t_max, float)
    x = jnp.zeros(shape)
    return convert(score(x, t), x, t, sde, source="score", target="denoised")


def last_normal(
    score: Callable[[Array, Array], Array], sde: SDE, shape: Shape, data_scale: Array | float = 1.0
) -> dist.Distribution:
    r"""Return the normal from which draws start at ``t_max``, and in which their density ends.

    Of mean :math:`\alpha a` and variance :math:`\alpha^2 v^2 + \sigma^2`: nearer to noised data
    than that of ``sde.prior``, which leaves a and v out.

    :param score: ``score(x, t)`` of one event.
    :param sde: the diffusion.
    :param shape: that of an event.
    :param data_scale: v, in units of the data.

    >>> from numpyro_score.samplers import last_normal
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.01, 100.0)
    >>> score = lambda x, t: (3.0 - x) / (1.0 + sde.marginal_std(t) ** 2)
    >>> last_normal(score, sde, (2,)).mean.round(1).tolist()
    [3.0, 3.0]
    """
    t = jnp.asarray(sde.t_max, float)
    scale = jnp.sqrt((sde.mean_scale(t) * data_scale) ** 2 + sde.marginal_std(t) ** 2)
    mean = sde.mean_scale(t) * expect_data(score, sde, shape)
    return dist.Normal(mean, scale).to_event(len(shape))
