"""Objectives as a loss of NumPyro's stochastic variational inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer.elbo import ELBO

from numpyro_score._typing import Array
from numpyro_score.distributions import LearnedDistribution
from numpyro_score.distributions._composed import ComposedDistribution
from numpyro_score.distributions._parts import unnormalized_parts
from numpyro_score.distributions._support import is_real


class ScoreMatchingLoss(ELBO):
    r"""Loss for ``numpyro.infer.SVI`` that learns unnormalized sites by an objective.

    Maximum likelihood of an unnormalized site would need its normalizer. This loss takes an
    objective for each observed site of an unnormalized distribution, and for the others what
    ``Trace_ELBO`` takes:

    .. math:: \sum_{\text{unnormalized}} \ell(x) - \log p(\text{other sites}) + \log q(\text{guide})

    where sites under a plate that subsamples are scaled as everywhere in NumPyro. Parameters may
    be those of a network (``eqx_module``, ``nnx_module``, ``flax_module``) or anything that an
    energy is made of, such as the precision of a Gaussian graphical model.

    :param objective: an objective of :mod:`numpyro_score.objectives`, for every such site.
    :param num_particles: draws of guide and minibatch per loss, as in ``Trace_ELBO``.
    :param vectorize_particles: as in ``Trace_ELBO``.
    :raises ValueError: an objective with a memory; at the first step, where the model has no site
        to learn so, or one that is latent, masked, part of another distribution, has a support
        with a border, or is a product or mixture with a batch.

    >>> import jax, jax.numpy as jnp, numpyro
    >>> from numpyro.infer import SVI
    >>> from numpyro_score.distributions import EnergyDistribution
    >>> from numpyro_score.objectives import ExplicitScoreMatching
    >>> from numpyro_score.training import ScoreMatchingLoss
    >>> def model(data):
    ...     precision = numpyro.param("precision", jnp.eye(2))
    ...     energy = (lambda A, x: 0.5 * x @ A @ x, precision)
    ...     with numpyro.plate("rows", len(data), subsample_size=50):
    ...         batch = numpyro.subsample(data, event_dim=1)
    ...         numpyro.sample("x", EnergyDistribution(energy, (2,)), obs=batch)
    >>> data = 2.0 * jax.random.normal(jax.random.key(0), (1000, 2))
    >>> loss = ScoreMatchingLoss(ExplicitScoreMatching())
    >>> svi = SVI(model, lambda data: None, numpyro.optim.Adam(0.05), loss)
    >>> result = svi.run(jax.random.key(1), 300, data, progress_bar=False)
    >>> bool(jnp.allclose(result.params["precision"], jnp.eye(2) / 4, atol=0.05))
    True
    """

    def __init__(
        self, objective: Any, num_particles: int = 1, vectorize_particles: Any = True
    ) -> None:
        if not callable(objective):
            raise TypeError(
                "objective must be one of numpyro_score.objectives, such as "
                f"DenoisingScoreMatching(noise_scale=0.1), got {type(objective).__name__}."
            )
        if hasattr(objective, "init_memory"):
            raise ValueError(
                f"{type(objective).__name__} has a memory, which SVI does not hand from step to "
                "step; use numpyro_score.training.fit, or ContrastiveDivergence."
            )
        self.objective = objective
        super().__init__(num_particles, vectorize_particles)

    def loss(
        self,
        rng_key: Array,
        param_map: dict[str, Array],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Array:
        """Return the loss; see :meth:`numpyro.infer.ELBO.loss`."""

        def trace(fn: Callable[..., Any]) -> dict[str, Any]:
            with_params = handlers.substitute(fn, data=param_map)
            return handlers.trace(with_params).get_trace(*args, **kwargs)

        def one_particle(rng_key: Array) -> Array:
            guide_key, model_key, loss_key = jax.random.split(rng_key, 3)
            guided = trace(handlers.seed(guide, guide_key))
            sites = trace(handlers.replay(handlers.seed(model, model_key), guided))
            return self._of_sites(loss_key, sites) + _log_density(guided.values())

        if self.num_particles == 1:
            return one_particle(rng_key)
        keys = jax.random.split(rng_key, self.num_particles)
        return jnp.mean(self.vectorize_particles_fn(one_particle, keys))

    def _of_sites(self, rng_key: Array, trace: dict[str, Any]) -> Array:
        sites = {name: site for name, site in trace.items() if site["type"] == "sample"}
        learned = [name for name, site in sites.items() if unnormalized_parts(site["fn"])]
        if not learned:
            raise ValueError(
                "ScoreMatchingLoss found no unnormalized site in the model: there is nothing for "
                "the objective; use Trace_ELBO, or observe an EnergyDistribution without a "
                "log_normalizer."
            )
        keys = jax.random.split(rng_key, len(learned))
        losses = [
            self._of_site(key, sites.pop(name)) for key, name in zip(keys, learned, strict=True)
        ]
        return sum(losses) - _log_density(sites.values())

    def _of_site(self, rng_key: Array, site: dict[str, Any]) -> Array:
        distribution = _learned(site)
        shape = distribution.event_shape
        lead = site["value"].shape[: site["value"].ndim - len(shape)]
        args = []
        if distribution.condition is not None:
            condition = distribution.condition
            event = condition.shape[condition.ndim - distribution.condition_event_dim :]
            args = [jnp.broadcast_to(condition, lead + event).reshape(-1, *event)]
        rows = site["value"].reshape(-1, *shape)
        losses = self.objective(_network(distribution), rows, rng_key, *args)
        return _scale(site) * jnp.sum(losses)


def _log_density(sites: Any) -> Array:
    """Return the sum of the scaled log densities of sample sites."""
    total = jnp.zeros(())
    for site in sites:
        if site["type"] == "sample":
            total += _scale(site) * jnp.sum(site["fn"].log_prob(site["value"]))
    return total


def _scale(site: dict[str, Any]) -> Any:
    return 1.0 if site["scale"] is None else site["scale"]


def _network(distribution: LearnedDistribution) -> Any:
    """Return the network of a distribution, or of one that is composed of several its energy."""
    if not isinstance(distribution, ComposedDistribution):
        return distribution.network
    return lambda x: -distribution.log_prob(x)


def _learned(site: dict[str, Any]) -> LearnedDistribution:
    """Return the learned distribution of a site, or say why the objective cannot learn it."""
    name, fn = site["name"], site["fn"]
    if not site["is_observed"]:
        raise ValueError(
            f"Site {name!r} is unnormalized and latent: an objective learns from observed values. "
            "Give it obs=..., or a log_normalizer."
        )
    while isinstance(fn, (dist.ExpandedDistribution, dist.Independent)):
        fn = fn.base_dist
    if not isinstance(fn, LearnedDistribution):
        raise ValueError(
            f"Site {name!r} holds an unnormalized distribution inside a {type(fn).__name__}, which "
            "an objective cannot look into. Observe the learned distribution itself; leave out "
            "rows in place of a mask."
        )
    if not is_real(fn.support):
        raise ValueError(
            f"Site {name!r} has the support {fn.support}, at whose border an objective is biased. "
            "Transform the data to the real numbers and learn the density there."
        )
    if isinstance(fn, ComposedDistribution) and fn.batch_shape:
        raise ValueError(
            f"Site {name!r} is a {type(fn).__name__} with the batch_shape {fn.batch_shape}, and an "
            "objective learns one density: leave the rows to a plate, and give no member a batch."
        )
    return fn
