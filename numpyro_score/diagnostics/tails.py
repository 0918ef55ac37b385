"""Whether a density falls off outside of the data, fast enough to be one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.diagnostics._field import Field, map_rows, read
from numpyro_score.diagnostics.result import Diagnostic

_MINIMUM = 20
_NUM_RADII = 12
_NEAREST = 2.0
# Of an unconstrained coordinate: the square of its exponential is still a number.
_FAR = 40.0


@dataclass(frozen=True, repr=False)
class TailCheck(Diagnostic):
    """What :func:`tail_check` returns.

    - **value** - the share of rays that fail.
    - **error** - its standard error, over rays.
    - **improper** - the share on which the density falls too slowly, out where it was looked at
      last, to have an integral.
    - **outward** - the share on which the score somewhere points away from the data.
    - **nearest** - where a ray fails first, in radii of the data; infinity if none does.
    - **reach** - how far out it was looked, in radii of the data.
    - **num_rays** - how many.
    """

    improper: float
    outward: float
    nearest: float
    reach: float
    num_rays: int

    def reading(self) -> str:
        """Return how to read the number, in one line."""
        if self.value == 0:
            return (
                f"on all of {self.num_rays} rays the density falls off, out to {self.reach:.3g} "
                "times the radius of the data"
            )
        return (
            f"share of rays that fail, from {self.nearest:.2g} times the radius of the data on; "
            f"on {self.improper:.2g} the density has no integral"
        )


def tail_check(
    distribution: Callable[[Array], Array] | Any,
    data: Array,
    *,
    key: Array,
    num_rays: int = 256,
    reach: float = 10.0,
    event_dim: int | None = None,
) -> TailCheck:
    r"""Whether the density falls off along rays out of the data, as a density must.

    A network says nothing outside of its data, and a chain that gets there may never come back.
    Rays :math:`x(r) = m + r\,\sigma v` run from the mean of the data in random directions v, with
    its standard deviations :math:`\sigma` as units; 1 radius is the largest distance of a row of
    data from the mean. At twelve radii between 2 and ``reach`` the slope

    .. math:: \frac{d \log p}{d \log r} = s(x) \cdot (x - m)

    must be below 0, so that the score points back and the energy grows; and at the last below -d,
    because :math:`\int p(r)\, r^{d - 1} dr` is finite only for a density that falls faster than
    :math:`r^{-d}`. Student's t passes, with -(ν + d). What lies beyond ``reach`` is not seen, nor
    modes that are not in the data, between its rows.

    :param distribution: a distribution, or ∇ log p of one event. With a constraint it is looked at
        in its unconstrained coordinates; with a condition for each row of data, each ray has that
        of one row.
    :param data: shape ``(n, *event_shape)`` or ``(chains, draws, *event_shape)``.
    :param key: a random key, for the directions.
    :param num_rays: how many.
    :param reach: above 2, in radii of the data. In unconstrained coordinates no ray goes beyond 40
        by it, because the square of exp(44) is no floating-point number; the result says how far
        they went.
    :param event_dim: see :func:`kernel_stein_discrepancy`.
    :raises ValueError: fewer than 20 rows, a constant coordinate, or arguments that do not fit.
    :raises FloatingPointError: a row of the data is not finite. A score that is not finite fails.

    >>> import jax
    >>> from numpyro_score.diagnostics import tail_check
    >>> data = jax.random.normal(jax.random.key(0), (500, 2))
    >>> tail_check(lambda x: -x, data, key=jax.random.key(1)).value
    0.0
    >>> tail_check(lambda x: -x / (1 + x @ x), data, key=jax.random.key(1)).improper
    1.0
    """
    check_int(num_rays, "num_rays", 10)
    if isinstance(reach, bool) or not _NEAREST < reach < math.inf:
        raise ValueError(f"reach must be a number above {_NEAREST:g}, got {reach!r}.")
    rows, field = read(distribution, data, event_dim, minimum=_MINIMUM, name="data")
    x = np.asarray(rows.x, np.float64)
    mean, sd = x.mean(0), x.std(0)
    if not (sd > 0).all():
        raise ValueError(
            f"coordinate {np.ravel(sd).argmin()} of the data is constant, so that there is no "
            "telling how far out is far. Leave it out, or add noise."
        )
    radius = np.sqrt(np.max(np.sum(((x - mean) / sd).reshape(len(x), -1) ** 2, 1)))
    if field.transform is not None:
        reachable = (_FAR - np.abs(mean).max()) / (radius * sd.max())
        reach = min(reach, max(reachable, 1.01 * _NEAREST))
    radii = np.geomspace(_NEAREST, reach, _NUM_RADII)
    choice, directions = jax.random.split(key)
    if field.conditions is not None:
        which = jax.random.randint(choice, (num_rays,), 0, len(x))
        field = Field(field.source, field.transform, field.conditions[which])
    v = jax.random.normal(directions, (num_rays, *x.shape[1:]), rows.x.dtype)
    v /= jnp.sqrt(jnp.sum(v.reshape(num_rays, -1) ** 2, 1)).reshape(-1, *[1] * (x.ndim - 1))
    centre, steps = (jnp.asarray(a, v.dtype) for a in (mean, radius * radii))
    slopes = np.asarray(_slopes(field, v * jnp.asarray(sd, v.dtype), centre, steps))
    return _judge(slopes, radii, x[0].size)


def _judge(slopes: np.ndarray, radii: np.ndarray, size: int) -> TailCheck:
    """Judge slopes ``(num_rays, num_radii)``; NaN fails."""
    points_out = ~(slopes < 0)
    improper = ~(slopes[:, -1] < -size)
    fails = points_out.copy()
    fails[:, -1] |= improper
    value, n = float(fails.any(1).mean()), len(slopes)
    guess = (value * n + 0.5) / (n + 1)  # else no failures at all would have no error
    return TailCheck(
        value=value,
        error=math.sqrt(guess * (1 - guess) / n),
        improper=float(improper.mean()),
        outward=float(points_out.any(1).mean()),
        nearest=float(radii[fails.any(0)].min()) if value else math.inf,
        reach=float(radii[-1]),
        num_rays=n,
    )


@eqx.filter_jit
def _slopes(field: Field, directions: Array, centre: Array, radii: Array) -> Array:
    def slopes(score: Callable[[Array], Array], direction: Array) -> Array:
        def slope(r: Array) -> Array:
            return jnp.sum(score(centre + r * direction) * r * direction)

        return jax.lax.map(slope, radii)

    return map_rows(field, slopes, directions)
