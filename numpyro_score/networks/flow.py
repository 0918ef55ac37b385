"""A masked autoregressive flow of NumPyro's transforms, on a Gaussian base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.example_libraries import stax
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.nn import AutoregressiveNN

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, PyTree, Shape
from numpyro_score.networks._vector import VectorNetwork, check_columns
from numpyro_score.networks.base import GaussianBase, Standardization
from numpyro_score.networks.density import DensityNetwork

# NumPyro cuts log scales off at 3 and lets their gradient pass, which would no longer be the score.
_LARGEST_LOG_SCALE = 3.0


class FlowDensity(DensityNetwork, VectorNetwork):
    r"""A masked autoregressive flow: :math:`-\log q(x) = -\log N(T(x); 0, I) - \log|\det T'(x)|`.

    T whitens x by the Gaussian base and then passes it through layers

    .. math:: z_i \mapsto e^{s_i(z_{<i}, c)} z_i + m_i(z_{<i}, c)

    whose order of dimensions alternates. They are NumPyro's ``InverseAutoregressiveTransform`` on
    its masked network, turned round, so that a density is one pass, and a draw one pass per
    dimension and layer. The condition c comes before all dimensions.

    Base and standardization come from :meth:`fit_base` and are not trained. The last layer of each
    masked network starts at zero, so that an untrained flow is the Gaussian itself.

    Sources: G. Papamakarios, T. Pavlakou & I. Murray, Masked autoregressive flow for density
    estimation, NeurIPS (2017); M. Germain et al., MADE, ICML (2015), for the masks.

    :param in_size: number of entries d of an event. One alone stays Gaussian for each condition.
    :param num_layers: number of autoregressive layers.
    :param width: size of the hidden layers, at least ``in_size + condition_size``.
    :param depth: number of hidden layers of each masked network.
    :param condition_size: length of the condition; 0 for none.
    :param columns: names of the entries, for messages about the data.
    :param key: random key for the weights.
    :raises ValueError: a size out of its range.

    Called with ``x`` of shape ``(in_size,)``, and a condition of shape ``(condition_size,)`` if
    there is one, it returns -log q(x), shape ``()``. Any other shape is a ``ValueError``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import FlowDensity
    >>> network = FlowDensity(2, width=8, key=jax.random.key(0))
    >>> round(network(jnp.array([3.0, 4.0])).item(), 4)  # 5²/2 + log 2π
    14.3379
    >>> network.sample(jax.random.key(1), (5,)).shape
    (5, 2)
    """

    layers: tuple[PyTree, ...]
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        *,
        num_layers: int = 5,
        width: int = 64,
        depth: int = 2,
        condition_size: int = 0,
        columns: Sequence[str] | None = None,
        key: Array,
    ) -> None:
        check_int(in_size, "in_size", 1)
        check_int(num_layers, "num_layers", 1)
        check_int(depth, "depth", 1)
        check_int(condition_size, "condition_size", 0)
        # With fewer units than inputs some would reach no output.
        check_int(width, "width", in_size + condition_size)
        self.base = GaussianBase.standard(in_size)
        self.condition_standardization = (
            Standardization.identity(condition_size) if condition_size else None
        )
        self.in_size = in_size
        self.condition_size = condition_size
        self.columns = check_columns(columns, in_size)
        self.width = width
        self.depth = depth
        keys = jax.random.split(key, num_layers)
        self.layers = tuple(self._init_layer(i, key) for i, key in enumerate(keys))

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return -log q of one event, shape ``()``."""
        self._check_event(x)
        white = self.base.whiten(x)
        return -self._flow(condition).log_prob(white) - jax.lax.stop_gradient(self.base.log_det)

    def sample(
        self, rng_key: Array, sample_shape: Shape = (), condition: Array | None = None
    ) -> Array:
        """Draw from the flow; see :meth:`DensityNetwork.sample`."""
        return self.base.unwhiten(self._flow(condition).sample(rng_key, tuple(sample_shape)))

    def _flow(self, condition: Array | None) -> dist.TransformedDistribution:
        """Return the distribution of a whitened event."""
        standard = self._standard_condition(condition)
        transforms: list[Any] = [
            InverseAutoregressiveTransform(partial(self._shift_and_log_scale, i, standard)).inv
            for i in range(len(self.layers))
        ]
        normal = dist.Normal(jnp.zeros(self.in_size), 1.0).to_event(1)
        return dist.TransformedDistribution(normal, transforms)

    def _shift_and_log_scale(self, i: int, condition: Array | None, z: Array) -> tuple:
        if condition is not None:
            lead = jnp.broadcast_to(condition, (*z.shape[:-1], self.condition_size))
            z = jnp.concatenate([lead, z], axis=-1)
        shift, log_scale = (
            out[..., self.condition_size :] for out in self._masked(i)[1](self.layers[i], z)
        )
        return shift, _LARGEST_LOG_SCALE * jnp.tanh(log_scale / _LARGEST_LOG_SCALE)

    def _masked(self, i: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return _masked_network(
            self.in_size, self.condition_size, self.width, self.depth, bool(i % 2)
        )

    def _init_layer(self, i: int, key: Array) -> PyTree:
        *hidden, last = self._masked(i)[0](key, (self.condition_size + self.in_size,))[1]
        return (*hidden, jax.tree.map(jnp.zeros_like, last))


@lru_cache
def _masked_network(
    in_size: int, condition_size: int, width: int, depth: int, is_reversed: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return NumPyro's masked network, ``init`` and ``apply``."""
    order = np.arange(condition_size + in_size)
    if is_reversed:
        order[condition_size:] = order[condition_size:][::-1].copy()
    # It makes its masks here, which must be no tracers if they are to be kept.
    with jax.ensure_compile_time_eval():
        return AutoregressiveNN(
            len(order),
            [width] * depth,
            permutation=order,
            nonlinearity=stax.elementwise(jax.nn.silu),
        )
