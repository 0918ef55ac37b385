"""A density known by its energy: p(x) = exp(-f(x)) / Z."""

from __future__ import annotations

import jax.numpy as jnp

from numpyro_score._typing import Array, Shape
from numpyro_score.distributions.base import LearnedDistribution


class EnergyDistribution(LearnedDistribution):
    """Distribution with density exp(-f(x)) / Z for an energy network f.

    ``log_prob`` is ``-f(x)``, and ``-f(x) - log_normalizer`` where that is given. Without it
    Z is unknown: it cancels in inference about ``x``, and never cancels in a parameter of f or
    in a condition. A model in which one of these depends on a latent site is doubly intractable
    and is refused by :func:`numpyro_score.infer.check_model` and by this package's kernels, all but
    :class:`numpyro_score.infer.Exchange`; call ``check_model`` yourself before you use another
    kernel.

    The energy must grow outside the data, or the density is improper: the networks of
    :mod:`numpyro_score.networks` carry a Gaussian base term for this.

    Source: Song & Kingma (2021), "How to Train Your Energy-Based Models", equation 1.

    :param network: anything that :func:`numpyro_score.networks.as_network` takes; one event of
        shape ``event_shape`` (and one condition) in, one number out.
    :param event_shape: shape of one event.
    :param condition: conditions of shape ``batch_shape + condition_event`` for an energy
        f(x, c); they give the distribution its ``batch_shape``.
    :param condition_event_dim: how many trailing axes of ``condition`` are one condition.
    :param support: a constraint with ``biject_to``, on single numbers (``positive``) or on
        events (``simplex``); the energy lives on the support itself, the Jacobian is NumPyro's.
    :param log_normalizer: log Z, where you know it, of shape ``batch_shape`` or a number.
    :param sampler: :class:`numpyro_score.samplers.Langevin` to allow ``sample``, which then
        runs a short chain at every call.
    :raises ValueError: where shapes do not fit, or the network returns no single number.

    >>> import jax.numpy as jnp
    >>> from numpyro_score.distributions import EnergyDistribution
    >>> d = EnergyDistribution(lambda x: 0.5 * jnp.sum(x**2), event_shape=(3,))
    >>> d.log_prob(jnp.ones((2, 5, 3))).shape
    (2, 5)
    >>> d.normalized
    False
    """

    def _check_network(self, event_shape: Shape) -> None:
        shape = self._output_shape(event_shape)
        if shape == ():
            return
        hint = (
            " That is the shape of a score: use ScoreDistribution." if shape == event_shape else ""
        )
        raise ValueError(
            "EnergyDistribution needs a network that maps one event of shape "
            f"{event_shape} to one number, of shape (); it returned the shape {shape}.{hint}"
        )

    def _event_log_prob(self, x: Array, condition: Array | None = None) -> Array:
        args = () if condition is None else (condition,)
        return -jnp.asarray(self.network(x, *args))
