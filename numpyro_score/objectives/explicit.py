"""Explicit score matching with the exact trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array
from numpyro_score.objectives._base import batched_score, map_rows


@dataclass(frozen=True)
class ExplicitScoreMatching:
    r"""Hyvärinen's score matching: learn the score of the data as they are.

    One loss per example :math:`x`, summed over the event:

    .. math:: \operatorname{tr} \nabla_x s_\theta(x) + \tfrac12 \| s_\theta(x) \|^2

    Its expectation differs from the Fisher divergence by a constant, if the density of the data
    is smooth and vanishes at infinity.

    Use it where the data are smooth and have few dimensions, or to check another objective: it
    adds no noise and has no settings. Not in many dimensions, since the trace costs one
    derivative of the score per dimension; nor on data that lie on a grid or in a subspace, where
    the loss has no lower bound.

    Source: A. Hyvärinen, Estimation of non-normalized statistical models by score matching,
    Journal of Machine Learning Research 6 (2005).

    Called with ``(network, batch, key, condition=None)``: an energy or a score (anything that
    :func:`~numpyro_score.networks.as_network` accepts), a batch of shape ``(n, *event_shape)``,
    a key that is not used, and a condition of shape ``(n, ...)``. It returns shape ``(n,)``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.objectives import ExplicitScoreMatching
    >>> batch = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    >>> ExplicitScoreMatching()(lambda x: -x, batch, jax.random.key(0)).tolist()
    [-2.0, 10.5]
    """

    noise_scale: ClassVar[float] = 0.0
    """This objective blurs nothing."""

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``."""
        score = batched_score(network, batch)

        def loss(x: Array, *condition: Array) -> Array:
            def flat_score(flat: Array) -> Array:
                return score(flat.reshape(x.shape), *condition).ravel()

            value, derivative = jax.linearize(flat_score, x.ravel())
            basis = jnp.eye(x.size, dtype=x.dtype)
            trace = jnp.sum(jax.vmap(lambda v: derivative(v) @ v)(basis))
            return trace + 0.5 * jnp.sum(value**2)

        return map_rows(loss, condition, batch)
