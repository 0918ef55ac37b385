"""Sliced score matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.objectives._base import batched_score, map_rows
from numpyro_score.objectives._kinks import refuse_kinks
from numpyro_score.objectives._trace import (
    Probe,
    check_probe,
    draw_probes,
    value_and_curvatures,
)


@dataclass(frozen=True)
class SlicedScoreMatching:
    r"""Sliced score matching: match the score along random directions.

    One loss per example :math:`x`, the mean over directions :math:`v` of

    .. math:: v^\top \nabla_x s_\theta(x)\, v + \tfrac12 (v^\top s_\theta(x))^2

    or, with ``variance_reduced`` (SSM-VR), of

    .. math:: v^\top \nabla_x s_\theta(x)\, v + \tfrac12 \| s_\theta(x) \|^2

    Directions have :math:`E[v v^\top] = I`, so that both have the expectation of
    :class:`ExplicitScoreMatching`. SSM-VR is that objective with Hutchinson's estimate.

    Use it in many dimensions on data that must not be blurred: it costs one derivative of the
    score per direction. SSM-VR is the better of the two wherever these directions allow it, and
    the default. Not on data on a grid or in a subspace, where the loss has no lower bound; there
    take :class:`DenoisingScoreMatching`. An energy needs two derivatives: with relu, whose gradient
    jumps, the loss would be least for a flat density, and is refused.

    Source: Y. Song, S. Garg, J. Shi, S. Ermon, Sliced score matching: a scalable approach to
    density and score estimation, UAI (2019), equations 7 and 8.

    :param num_projections: directions per example.
    :param projection: distribution of v: ``"normal"``, ``"rademacher"`` or ``"sphere"`` (of
        radius :math:`\sqrt d`).
    :param variance_reduced: whether the square of the score is exact.
    :raises ValueError: ``num_projections`` below 1, or another ``projection``.

    Called with ``(network, batch, key, condition=None)``: an energy or a score (anything that
    :func:`~numpyro_score.networks.as_network` accepts), a batch of shape ``(n, *event_shape)``,
    a random key, and a condition of shape ``(n, ...)``. It returns shape ``(n,)``. An energy of a
    module with relu, or the like, is a ``ValueError``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.objectives import SlicedScoreMatching
    >>> objective = SlicedScoreMatching(projection="rademacher")
    >>> batch = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    >>> objective(lambda x: -x, batch, jax.random.key(0)).tolist()
    [-2.0, 10.5]
    """

    num_projections: int = 1
    projection: Probe = "normal"
    variance_reduced: bool = True

    noise_scale: ClassVar[float] = 0.0
    """This objective blurs nothing."""

    def __post_init__(self):
        check_int(self.num_projections, "num_projections", 1)
        check_probe(self.projection, "projection")

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``."""
        score = batched_score(network, batch)
        refuse_kinks(network, batch, condition, type(self).__name__)
        n, *event = batch.shape
        shape = (n, self.num_projections, *event)
        directions = draw_probes(self.projection, key, shape, len(event), jnp.result_type(batch))

        def loss(x: Array, directions: Array, *condition: Array) -> Array:
            value, curvatures = value_and_curvatures(lambda x: score(x, *condition), x, directions)
            if self.variance_reduced:
                square = jnp.sum(value**2)
            else:
                along = directions.reshape(len(directions), -1) @ value.ravel()
                square = jnp.mean(along**2)
            return jnp.mean(curvatures) + 0.5 * square

        return map_rows(loss, condition, batch, directions)
