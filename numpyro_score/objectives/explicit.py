"""Explicit score matching."""

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
class ExplicitScoreMatching:
    r"""Hyvärinen's score matching: learn the score of the data as they are.

    One loss per example :math:`x`, summed over the event:

    .. math:: \operatorname{tr} \nabla_x s_\theta(x) + \tfrac12 \| s_\theta(x) \|^2

    Its expectation differs from the Fisher divergence by a constant, if the density of the data
    is smooth and vanishes at infinity.

    Use it where the data are smooth, or to check another objective: it adds no noise. The exact
    trace has no settings, and costs one derivative of the score per dimension; in more than about
    ten of them give ``num_probes``, for Hutchinson's estimate of it. Not on data that lie on a
    grid or in a subspace, where the loss has no lower bound. An energy needs two derivatives: with
    relu, whose gradient jumps, the loss would be least for a flat density, and is refused.

    Sources: A. Hyvärinen, Estimation of non-normalized statistical models by score matching,
    Journal of Machine Learning Research 6 (2005), equation 4; M. F. Hutchinson, A stochastic
    estimator of the trace of the influence matrix, Communications in Statistics 19 (1990).

    :param num_probes: random vectors v per example, whose mean of :math:`v^\top \nabla_x s v`
        stands for the trace; None for the trace itself.
    :param probe: distribution of v: ``"rademacher"`` (signs; never a larger variance than
        ``"normal"``), ``"normal"``, or ``"sphere"`` (of radius :math:`\sqrt d`).
    :raises ValueError: ``num_probes`` below 1, or another ``probe``.

    Called with ``(network, batch, key, condition=None)``: an energy or a score (anything that
    :func:`~numpyro_score.networks.as_network` accepts), a batch of shape ``(n, *event_shape)``,
    a key that only probes use, and a condition of shape ``(n, ...)``. It returns shape ``(n,)``.
    An energy of a module with relu, or the like, is a ``ValueError``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.objectives import ExplicitScoreMatching
    >>> batch = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    >>> ExplicitScoreMatching()(lambda x: -x, batch, jax.random.key(0)).tolist()
    [-2.0, 10.5]
    >>> ExplicitScoreMatching(num_probes=1)(lambda x: -x, batch, jax.random.key(0)).tolist()
    [-2.0, 10.5]
    """

    num_probes: int | None = None
    probe: Probe = "rademacher"

    noise_scale: ClassVar[float] = 0.0
    """This objective blurs nothing."""

    def __post_init__(self):
        if self.num_probes is not None:
            check_int(self.num_probes, "num_probes", 1)
        check_probe(self.probe, "probe")

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``."""
        score = batched_score(network, batch)
        refuse_kinks(network, batch, condition, type(self).__name__)
        if self.num_probes is None:
            return map_rows(lambda x, *c: _exact(lambda x: score(x, *c), x), condition, batch)
        n, *event = batch.shape
        shape = (n, self.num_probes, *event)
        probes = draw_probes(self.probe, key, shape, len(event), jnp.result_type(batch))

        def loss(x: Array, probes: Array, *condition: Array) -> Array:
            value, curvatures = value_and_curvatures(lambda x: score(x, *condition), x, probes)
            return jnp.mean(curvatures) + 0.5 * jnp.sum(value**2)

        return map_rows(loss, condition, batch, probes)


def _exact(score: Any, x: Array) -> Array:
    def flat_score(flat: Array) -> Array:
        return score(flat.reshape(x.shape)).ravel()

    value, curvatures = value_and_curvatures(flat_score, x.ravel(), jnp.eye(x.size, dtype=x.dtype))
    return jnp.sum(curvatures) + 0.5 * jnp.sum(value**2)
