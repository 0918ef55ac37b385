"""A density known by its score s(x) = ∇ₓ log p(x)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from numpyro_score._checks import check_int, is_concrete
from numpyro_score._typing import Array, PyTree, Shape
from numpyro_score.distributions._line_integral import anchored_line_integral
from numpyro_score.distributions.base import LearnedDistribution
from numpyro_score.samplers import Langevin


class ScoreDistribution(LearnedDistribution):
    """Distribution whose score is a network, with log density by a line integral.

    A score alone has no density. ``log_prob`` is the anchored line integral

        φ(x) = ∫₀¹ s(a + t (x - a)) · (x - a) dt,

    which is log p(x) - log p(a) where s is the gradient of log p, and a well-defined log
    density, with the score reused as the drift, where it is not (a network's field always has
    some curl). So Metropolis-Hastings is exact for exp(φ). One call costs ``num_nodes``
    evaluations of the network, in one batch; the gradient costs none on top.

    The quadrature is Gauss-Radau with its last node at ``x``, exact for fields that are
    polynomials of degree ``2 num_nodes - 3`` along the segment. Where modes lie far apart
    compared to their width the field changes fast along the segment: raise ``num_nodes`` until
    ``log_prob`` no longer changes.

    :param network: anything that :func:`numpyro_score.networks.as_network` takes; one event (and
        one condition) in, an array of shape ``event_shape`` out.
    :param event_shape: shape of one event, at least one axis.
    :param condition: see :class:`EnergyDistribution`; likewise ``condition_event_dim``,
        ``support``, ``log_normalizer`` (log ∫ exp φ) and ``sampler``.
    :param anchor: the point a, where φ is 0, of shape ``event_shape`` and inside the support.
        The default is the mean of the network's Gaussian base where it has one, else the image
        of the origin under the bijection of the support.
    :param num_nodes: evaluations of the score along the segment.
    :raises ValueError: where shapes do not fit, or the network returns no array of
        ``event_shape``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.distributions import ScoreDistribution
    >>> d = ScoreDistribution(lambda x: -x, event_shape=(2,))
    >>> d.log_prob(jnp.array([1.0, 2.0])).round(4).item()
    -2.5
    >>> jax.grad(d.log_prob)(jnp.array([1.0, 2.0])).tolist()
    [-1.0, -2.0]
    """

    pytree_data_fields = ("anchor",)
    pytree_aux_fields = ("num_nodes",)

    def __init__(
        self,
        network: PyTree,
        event_shape: Shape,
        *,
        condition: Array | None = None,
        condition_event_dim: int = 1,
        anchor: Array | None = None,
        num_nodes: int = 16,
        support: constraints.Constraint | None = None,
        log_normalizer: Array | float | None = None,
        sampler: Langevin | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_int(num_nodes, "num_nodes", 2)
        self.num_nodes = num_nodes
        super().__init__(
            network,
            event_shape,
            condition=condition,
            condition_event_dim=condition_event_dim,
            support=support,
            log_normalizer=log_normalizer,
            sampler=sampler,
            validate_args=validate_args,
        )
        self.anchor = self._default_anchor() if anchor is None else jnp.asarray(anchor, float)
        self._check_anchor()

    def _default_anchor(self) -> Array:
        transform = self._standard_coordinates()
        return transform(jnp.zeros(transform.inverse_shape(self.event_shape)))

    def _check_anchor(self) -> None:
        if self.anchor.shape != self.event_shape:
            raise ValueError(
                f"anchor must have the event_shape {self.event_shape}, got {self.anchor.shape}."
            )
        if is_concrete(self.anchor):
            inside = np.isfinite(self.anchor).all() and np.all(self.support(self.anchor))
            if not inside:
                raise ValueError(
                    f"anchor must lie inside the support {self.support}, got {self.anchor}."
                )

    def _check_network(self, event_shape: Shape) -> None:
        if event_shape == ():
            raise ValueError(
                "ScoreDistribution needs an event_shape with at least one axis, because a scalar "
                "score cannot be told from an energy; use event_shape=(1,)."
            )
        shape = self._output_shape(event_shape)
        if shape != event_shape:
            hint = " One number is an energy: use EnergyDistribution." if shape == () else ""
            raise ValueError(
                "ScoreDistribution needs a network that maps one event of shape "
                f"{event_shape} to its score, of the same shape; it returned {shape}.{hint}"
            )

    def _event_log_prob(self, x: Array, condition: Array | None = None) -> Array:
        return anchored_line_integral(
            _Score(self._static), self.num_nodes, (self._arrays, condition), x, self.anchor
        )

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"anchor": self.anchor, "num_nodes": self.num_nodes}

    def score(self, value: Array) -> Array:
        """The network itself at ``value``, without a line integral."""
        return self._map(self.network, value)


class _Score:
    """``score((arrays, condition), x)`` of a network without its arrays: hashable, for autodiff."""

    def __init__(self, static: PyTree) -> None:
        self.static = static

    def __call__(self, args: tuple[PyTree, Array | None], x: Array) -> Array:
        arrays, condition = args
        network = eqx.combine(arrays, self.static)
        return network(x) if condition is None else network(x, condition)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Score) and self.static == other.static

    def __hash__(self) -> int:
        return hash(self.static)
