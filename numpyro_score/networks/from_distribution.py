"""Distributions of NumPyro and FlowJAX as density networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpyro.distributions as dist

from numpyro_score._typing import Array, PyTree, Shape
from numpyro_score.networks._frozen import Constants
from numpyro_score.networks.adapters import _check_function, _to_jax
from numpyro_score.networks.density import DensityNetwork


class DistributionDensity(DensityNetwork):
    """A distribution of NumPyro as a density network; made by :func:`from_distribution`."""

    params: PyTree
    build: Callable[..., dist.Distribution] = eqx.field(static=True)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return -log q of one event, shape ``()``."""
        return -self._distribution(condition).log_prob(x)

    def sample(
        self, rng_key: Array, sample_shape: Shape = (), condition: Array | None = None
    ) -> Array:
        """Draw from the distribution; see :meth:`DensityNetwork.sample`."""
        return self._distribution(condition).sample(rng_key, tuple(sample_shape))

    def _distribution(self, condition: Array | None) -> dist.Distribution:
        rest = () if condition is None else (condition,)
        built = self.build(self.params, *rest)
        if not isinstance(built, dist.Distribution):
            raise TypeError(
                f"build must return a NumPyro distribution, got {type(built).__name__}."
            )
        if built.batch_shape:
            raise ValueError(
                "build must return the distribution of one event, of the batch_shape (); got the "
                f"batch_shape {built.batch_shape} and the event_shape {built.event_shape}; see "
                "to_event."
            )
        return built


def from_distribution(build: Callable[..., dist.Distribution], params: PyTree) -> DensityNetwork:
    """Return any NumPyro distribution as a density network with trained parameters.

    NumPyro's flows are such distributions: a ``TransformedDistribution`` whose transforms hold
    networks. Turn an ``InverseAutoregressiveTransform`` round by ``.inv``: the density of data is
    then one pass, and it is draws that take one pass per dimension.

    :param build: hashable ``build(params)`` or ``build(params, condition)`` that returns a
        distribution of the ``batch_shape`` ``()``. Where parameters must be positive, let it
        take their exponentials.
    :param params: pytree of arrays; its floating-point leaves are trained.
    :return: the network. To load one from a file needs ``like``, since ``build`` is your code.
    :raises TypeError: ``build`` is no hashable function; at the call, it returns no distribution.
    :raises ValueError: at the call, if the distribution has a ``batch_shape``.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro_score.networks import from_distribution
    >>> build = lambda p: dist.Normal(p["loc"], jnp.exp(p["log_scale"])).to_event(1)
    >>> network = from_distribution(build, {"loc": jnp.ones(2), "log_scale": jnp.zeros(2)})
    >>> round(network(jnp.array([1.0, 3.0])).item(), 4)  # 2²/2 + log 2π
    3.8379
    """
    _check_function(build, "build")
    return DistributionDensity(_to_jax(params), build)


class FlowJAXDensity(DensityNetwork):
    """A distribution of FlowJAX as a density network; made by :func:`from_flowjax`."""

    params: PyTree
    rest: Constants

    @property
    def distribution(self) -> Any:
        """The distribution of FlowJAX."""
        return eqx.combine(self.params, self.rest.tree)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return -log q of one event, shape ``()``."""
        return -self.distribution.log_prob(x, condition)

    def sample(
        self, rng_key: Array, sample_shape: Shape = (), condition: Array | None = None
    ) -> Array:
        """Draw from the distribution; see :meth:`DensityNetwork.sample`."""
        return self.distribution.sample(rng_key, tuple(sample_shape), condition)


def from_flowjax(distribution: Any) -> DensityNetwork:
    """Return a distribution of FlowJAX, such as a coupling or spline flow, as a density network.

    Its own methods are called, not FlowJAX's wrapper for NumPyro, which stops the gradient in a
    condition: a condition that depends on a latent site would be inferred wrongly.

    :param distribution: a ``flowjax.distributions.AbstractDistribution``, for one event; its
        floating-point arrays are trained, but for those that FlowJAX marks as not trainable.
        Choose its orientation for data (``invert=True``, FlowJAX's default).
    :return: the network. To load one from a file needs ``like``.
    :raises TypeError: not such a distribution.
    :raises ImportError: FlowJAX is not installed.
    """
    try:
        from flowjax.distributions import AbstractDistribution
        from paramax import NonTrainable
    except ImportError as error:
        raise ImportError("FlowJAX is needed: pip install 'numpyro_score[flowjax]'") from error
    if not isinstance(distribution, AbstractDistribution):
        raise TypeError(
            "from_flowjax takes a flowjax.distributions.AbstractDistribution, got "
            f"{type(distribution).__name__}; for one of NumPyro see from_distribution."
        )
    # Gradients stop at what is not trainable of its own accord; weight decay would not.
    params, rest = eqx.partition(
        distribution, eqx.is_inexact_array, is_leaf=lambda node: isinstance(node, NonTrainable)
    )
    return FlowJAXDensity(params, Constants(rest))
