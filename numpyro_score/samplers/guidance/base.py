"""What every guidance gets to see of a particle, and what it tells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from numpyro_score._typing import Array
from numpyro_score.samplers.guidance.measurement import Measurement
from numpyro_score.sde import SDE, convert


class Linearized(NamedTuple):
    r"""One particle :math:`\hat x = x_t / \alpha` and the measurement, near what it may become.

    With D the expected data given the particle, and A the Jacobian of ``forward`` at D:

    - **score** - that of the diffusion at :math:`x_t`, of the shape of an event.
    - **denoised** - D, likewise.
    - **residual** - y - F(D), a vector.
    - **noise** - σ / α, so that the particle is data and noise of this level.
    - **noise_std** - s, that of the measurement.
    - **to_measurement** - u to A u, from an event to a vector.
    - **to_data** - v to Aᵀ v, from a vector to an event.
    - **to_particle** - v to :math:`(\partial D / \partial \hat x)^\top A^\top v`, likewise.
    """

    score: Array
    denoised: Array
    residual: Array
    noise: Array
    noise_std: Array
    to_measurement: Callable[[Array], Array]
    to_data: Callable[[Array], Array]
    to_particle: Callable[[Array], Array]


class Likelihood(NamedTuple):
    r"""What a guidance takes :math:`p(y \mid \hat x)` for, of one particle.

    - **score** - the derivative of its logarithm in :math:`\hat x = x_t / \alpha`.
    - **log_prob** - its logarithm with the normalizer; None where the method has none.
    """

    score: Array
    log_prob: Array | None


class Guidance(ABC):
    """A guess of how likely the measurement is, given the event with noise.

    A subclass gives :meth:`likelihood`, for one particle, out of derivatives that are ready.
    """

    @abstractmethod
    def likelihood(self, at: Linearized) -> Likelihood:
        """Return what the measurement says of one particle."""


def linearize(
    x: Array, t: Array, sde: SDE, score: Callable[..., Array], measurement: Measurement
) -> Linearized:
    """Look at one particle: one evaluation of ``score``, whose derivatives come when asked for."""
    scale = sde.mean_scale(t)

    def denoise(u: Array) -> tuple[Array, Array]:
        value = score(scale * u, t)
        return convert(value, scale * u, t, sde, source="score", target="denoised"), value

    denoised, to_particle, value = jax.vjp(denoise, x / scale, has_aux=True)
    predicted, to_measurement = jax.linearize(measurement.predict, denoised)
    transposed = jax.linear_transpose(to_measurement, denoised)
    return Linearized(
        value,
        denoised,
        measurement.y.ravel() - predicted,
        sde.noise_scale(t),
        measurement.noise_std,
        to_measurement,
        lambda v: transposed(v)[0],
        lambda v: to_particle(transposed(v)[0])[0],
    )


def check_guidance(guidance: Any) -> None:
    """Refuse anything but a guidance, such as its class."""
    if not isinstance(guidance, Guidance):
        raise TypeError(f"guidance must be one such as MomentMatching(), got {guidance!r}.")
