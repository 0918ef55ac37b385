"""A finished run for ArviZ, with all that it has to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpyro_score._typing import Array
from numpyro_score.diagnostics._dims import name_dims
from numpyro_score.diagnostics._extra_groups import (
    add_scores,
    add_warmup,
    drop_log_likelihood,
    unnormalized_sites,
)
from numpyro_score.diagnostics._groups import Names
from numpyro_score.diagnostics._prediction_groups import add_predictions
from numpyro_score.diagnostics._run import check_run, draws_by_site
from numpyro_score.diagnostics.arviz import (
    kernel_attributes,
    say_of_run,
    tuning_attributes,
    versions,
)


def to_arviz(
    mcmc: Any,
    *,
    prior: int | Mapping[str, Array] | None = None,
    posterior_predictive: int | Mapping[str, Array] | None = None,
    key: Array | None = None,
    warmup: Mapping[str, Array] | None = None,
    log_likelihood: bool = True,
    scores: bool = True,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    **kwargs: Any,
) -> Any:
    r"""Return a finished run for ArviZ, with all that a reader of the file will ask.

    Beyond what ``arviz.from_numpyro`` gives:

    - ``posterior`` and ``sample_stats`` have as attributes the kernel and its bias
      (:func:`from_numpyro`), step size, mean acceptance and metric of each chain, swap rates and
      round trips of ``ReplicaExchange``, the log evidence of ``TemperedSMC``, and versions.
    - ``prior``, ``prior_predictive`` and ``posterior_predictive``, where asked for. A site whose
      distribution has no sampler is left out, with what depends on it. The attribute
      ``prior_left_out`` of ``posterior`` says why, as those named below do.
    - ``sample_stats`` has ``score_norm``, :math:`\|s\|` for the score s = ∇ log p of the
      unconstrained parameters z, and ``virial``, :math:`-(z - \bar z) \cdot s / d`, whose mean is
      1 for draws of the posterior (Stein's identity): a biased kernel, or a chain that has not
      arrived, has another.
    - ``log_likelihood`` of sites that are normalized. Where log p(y | θ) lacks its normalizer, LOO
      and WAIC have no meaning, so that such a site is left out; see ``log_likelihood_left_out``.
    - Axes have names: an image site has ``row`` and ``col``, behind those of its plates.
    - ``warmup_posterior``, where draws of the warm-up were kept: by a ``checkpoint``, or as given.

    :param mcmc: a :class:`numpyro.infer.MCMC`, one of ours, or particles, after its run.
    :param prior: how many draws of the prior to make; or draws, ``(n, *site)`` by site.
    :param posterior_predictive: how many draws of each chain, evenly spaced, to replicate data for;
        or replicated data by site, ``(chains * draws, *site)`` or ``(chains, draws, *site)``.
    :param key: a random key, where a number of draws is asked for.
    :param warmup: draws of the warm-up by site, with the axes (chain, draw, …): what
        ``mcmc.get_samples(group_by_chain=True)`` gave after ``warmup(..., collect_warmup=True)``.
    :param log_likelihood: whether to evaluate it, at each draw.
    :param scores: whether to evaluate the score, at each draw.
    :param dims: names of axes by site, as ArviZ takes them; they win over those found.
    :param coords: coordinates by name of axis.
    :param kwargs: other arguments of ``arviz.from_numpyro``.
    :return: an ``InferenceData`` (ArviZ 0.23) or a ``DataTree`` (ArviZ 1).
    :raises RuntimeError: the run has not been.
    :raises ValueError: draws of another shape, or a number of draws without a key.

    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.diagnostics import to_arviz
    >>> from numpyro_score.distributions import EnergyDistribution
    >>> from numpyro_score.infer import MALA
    >>> prior = EnergyDistribution(lambda x: 0.5 * jnp.sum(x**2), (2, 3))
    >>> def model(y):
    ...     image = numpyro.sample("image", prior)
    ...     numpyro.sample("y", dist.Normal(image.sum(), 1.0), obs=y)
    >>> mcmc = MCMC(MALA(model), num_warmup=100, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), 1.0)
    >>> data = to_arviz(mcmc, prior=10, posterior_predictive=20, key=jax.random.key(1))
    >>> data["posterior"]["image"].dims
    ('chain', 'draw', 'row', 'col')
    >>> data["posterior_predictive"]["y"].shape
    (1, 20)
    >>> data["posterior"].attrs["prior_left_out"]
    "image: its distribution, EnergyDistribution, has no sampler; y: depends on 'image'"
    """
    import arviz as az

    check_run(mcmc)
    model, samples = mcmc.sampler.model, draws_by_site(mcmc)
    given = {name: list(axes) for name, axes in (dims or {}).items()}
    names = Names(given, dict(coords or {}))
    left_out: dict[str, str] = {}
    if model is not None:
        shapes = {name: values.shape[2:] for name, values in samples.items()}
        extra = kwargs.pop("extra_event_dims", None) or {}
        found = name_dims(model, mcmc._args, mcmc._kwargs, shapes, given, extra)
        names = names._replace(dims=found)
        left_out = unnormalized_sites(model, mcmc._args, mcmc._kwargs)
    data = az.from_numpyro(
        mcmc,
        dims=names.dims,
        coords=names.coords,
        log_likelihood=log_likelihood and model is not None,
        **kwargs,
    )
    if log_likelihood:
        drop_log_likelihood(data, left_out)
    if scores:
        add_scores(data, mcmc)
    # Last of all, because the scores may be the first of the statistics.
    say_of_run(data, kernel_attributes(mcmc) | tuning_attributes(mcmc) | versions())
    add_predictions(data, mcmc, samples, names, prior, posterior_predictive, key)
    add_warmup(data, mcmc, names, warmup)
    return data
