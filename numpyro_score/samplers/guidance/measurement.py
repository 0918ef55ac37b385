"""What was measured of an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_float, check_positive, is_concrete
from numpyro_score._typing import Array, Shape
from numpyro_score.networks import as_network


class Measurement(eqx.Module):
    r"""A measurement :math:`y = F(x) + s \varepsilon` of an event, :math:`\varepsilon \sim N(0,I)`.

    Noise of unequal entries, or with a covariance, is made equal by a whitening of ``y`` and of
    what ``forward`` returns. A pytree whose leaves are arrays: it passes through ``jit``.

    :param forward: F, a differentiable function of one event, of the shape of ``y``; linear or not.
        Also an Equinox module, or a pair ``(function, params)``.
    :param y: what was measured.
    :param noise_std: s, one number for all of ``y``.
    :raises TypeError: ``forward`` is no function, or ``y`` holds no floating-point numbers.
    :raises ValueError: a ``noise_std`` that is not one number above 0, or a ``y`` that is not
        finite.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.samplers.guidance import Measurement
    >>> measurement = Measurement(lambda x: x[:1] - x[1:], jnp.array([0.5]), noise_std=0.1)
    >>> measurement.residual(jnp.array([2.0, 1.0])).tolist()
    [-0.5]
    """

    forward: Callable[..., Array]
    y: Array
    noise_std: Array

    def __init__(self, forward: Any, y: Any, noise_std: Any) -> None:
        if not (callable(forward) or isinstance(forward, tuple)):
            raise TypeError(f"forward must be a function of one event, got {forward!r}.")
        check_float(y, "y")
        check_positive(noise_std, "noise_std")
        if jnp.shape(noise_std) != ():
            raise ValueError(
                f"noise_std must be one number, got the shape {jnp.shape(noise_std)}; where "
                "entries of y have noise of their own, divide y and what forward returns by it."
            )
        if is_concrete(y) and not np.all(np.isfinite(y)):
            raise ValueError("y must be finite; leave out of y and forward what was not measured.")
        self.forward = as_network(forward)
        self.y = jnp.asarray(y)
        self.noise_std = jnp.asarray(noise_std, self.y.dtype)

    def predict(self, x: Array) -> Array:
        """Return F(x) of one event as a vector."""
        return jnp.ravel(self.forward(x))

    def residual(self, x: Array) -> Array:
        """Return y - F(x) for one event, as a vector."""
        return jnp.ravel(self.y) - self.predict(x)

    def log_prob(self, x: Array) -> Array:
        """Return log p(y | x) for one event, with its normalizer."""
        return log_normal(self.residual(x), self.noise_std)


def log_normal(residual: Array, std: Array) -> Array:
    """Return the log density of independent normals of mean 0, shape ``()``."""
    return -0.5 * jnp.sum((residual / std) ** 2 + jnp.log(2 * jnp.pi * std**2))


def check_measurement(measurement: Any, event_shape: Shape, dtype: Any) -> None:
    """Refuse what is no measurement, or one of other events."""
    if not isinstance(measurement, Measurement):
        raise TypeError(
            "measurement must be a Measurement(forward, y, noise_std), got "
            f"{type(measurement).__name__}."
        )
    out = jax.eval_shape(measurement.forward, jax.ShapeDtypeStruct(event_shape, dtype))
    found = getattr(out, "shape", None)
    if found != measurement.y.shape or not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(
            f"forward must return floating-point numbers of the shape of y, {measurement.y.shape}, "
            f"for one event of shape {event_shape}; got {out}."
        )
