"""Simulation-based calibration: ranks of truths among draws of their posteriors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpyro.infer.mcmc import MCMCKernel

from numpyro_score._checks import check_int
from numpyro_score._typing import Array
from numpyro_score.diagnostics._prior_draws import (
    Call,
    Prior,
    check_joint,
    draw_joint,
    find_sites,
    given_draws,
)
from numpyro_score.diagnostics._ranks import holm, rank_of_truth, uniformity_p_values
from numpyro_score.diagnostics._replications import (
    Posteriors,
    Quantities,
    Run,
    effective_sizes,
    have_moved,
)
from numpyro_score.diagnostics.calibration_result import SimulationBasedCalibration
from numpyro_score.infer import MALA

_MIN_REPLICATIONS = 50
_MIN_DRAWS = 19
_BATCH = 100


def simulation_based_calibration(
    rng_key: Array,
    model: Callable[..., Any],
    *args: Any,
    observed: str | Sequence[str],
    kernel: Callable[..., MCMCKernel] = MALA,
    prior: Prior | None = None,
    var_names: Sequence[str] | None = None,
    quantities: Quantities | None = None,
    num_replications: int = 300,
    num_draws: int = 99,
    num_warmup: int = 500,
    thinning: int | None = None,
    batch_size: int | None = None,
    **kwargs: Any,
) -> SimulationBasedCalibration:
    r"""Test a kernel on a model: draw truths and data, sample each posterior, and rank the truths.

    A truth θ drawn from the prior, with data y drawn given it, is a draw of the posterior given
    these y. Among L independent draws of that posterior its rank is uniform on 0, …, L. Where
    ranks over many replications are not, something is wrong: the kernel, the score or energy, its
    Jacobian, or the draws of the prior. (A posterior that ignores the data has uniform ranks, too:
    give ``quantities`` that depend on both, such as the log likelihood, to see that.)

    All posteriors are drawn by one compiled program, a batch of them side by side, each by a chain
    with a warm-up of its own from where the kernel starts by itself. Draws of a chain depend on
    each other, which makes ranks extreme; thinning is found by pilot runs of the first batch, so
    that half of the draws or more are effective, and the result says if that did not suffice.

    Sources: S. Talts et al., Validating Bayesian inference algorithms with simulation-based
    calibration, arXiv:1804.06788 (2018), theorem 1 and algorithm 2; M. Modrák et al.,
    Simulation-based calibration checking for Bayesian computation, Bayesian Analysis 20 (2025),
    for quantities that depend on the data.

    :param rng_key: a random key.
    :param model: a NumPyro model whose sites of data have no value when it is called so:
        ``numpyro.sample("y", ..., obs=None)``.
    :param args: positional arguments of the model; ``kwargs`` its keyword arguments.
    :param observed: names of the sites of data, drawn given the truth, and then conditioned on.
    :param kernel: makes a kernel of one chain from a model: a class of :mod:`numpyro_score.infer`
        or :mod:`numpyro.infer`, or ``lambda model: MALA(model, dense_mass=True)``.
    :param prior: for latent sites without an exact sampler of their own, as energies and scores
        are: exact draws of shape ``(num_replications, *shape of the site)`` by name, or a function
        of a key that returns one draw.
    :param var_names: latent or deterministic sites to rank; by default all latent ones.
    :param quantities: maps the values of sites, and data, of one draw to a dict of further numbers
        to rank.
    :param num_replications: how many truths, 50 or more.
    :param num_draws: L, draws of each posterior after thinning, 19 or more.
    :param num_warmup: steps of warm-up of each chain.
    :param thinning: steps from one draw to the next; None to find it out.
    :param batch_size: posteriors that are drawn side by side; by default up to 100.
    :raises ModelError: by the kernel, for a model that it cannot sample.
    :raises ValueError: sites that are not there or have values already, a site that cannot be
        drawn, draws of the prior of another shape.
    :raises FloatingPointError: truths or data that are not finite.
    :raises TypeError: ``kernel`` makes no kernel.

    >>> import jax, numpyro, numpyro.distributions as dist
    >>> from numpyro_score.diagnostics import simulation_based_calibration
    >>> def model(y=None):
    ...     mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> simulation_based_calibration(
    ...     jax.random.key(0), model, observed="y", num_replications=100, num_warmup=200
    ... )
    SimulationBasedCalibration(p = ...: ranks of 1 components in 100 replications are uniform...
    """
    check_int(num_replications, "num_replications", _MIN_REPLICATIONS)
    check_int(num_draws, "num_draws", _MIN_DRAWS)
    check_int(num_warmup, "num_warmup", 0)
    for value, name in ((thinning, "thinning"), (batch_size, "batch_size")):
        if value is not None:
            check_int(value, name, 1)
    names = (observed,) if isinstance(observed, str) else tuple(observed)
    call, prior = Call(model, args, kwargs, names), {} if prior is None else prior
    sites = find_sites(call, prior)
    given_key, joint_key, pilot_key, run_key, test_key = jax.random.split(rng_key, 5)
    ranked = _ranked(var_names, sites.latent, sites.deterministic)

    def values_of(values: dict[str, Array], data: dict[str, Array]) -> dict[str, Array]:
        made = {name: values[name] for name in ranked}
        return made if quantities is None else made | quantities(values, data)

    given = given_draws(given_key, prior, sites, num_replications)
    # Batches of one size, as far as that can be.
    num_batches = -(-num_replications // (batch_size or _BATCH))
    batch_size = -(-num_replications // num_batches)
    posteriors = Posteriors(call, Run(kernel, num_warmup, num_draws, values_of), batch_size)
    # Before anything is drawn, the kernel says whether it can sample this.
    posteriors.check({name: sites.shapes[name] for name in names})

    def joint(key: Array, given: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        values = draw_joint(key, call, given, sites)
        data = {name: values.pop(name) for name in names}
        return values_of(values, data), data

    keys = jax.random.split(joint_key, num_replications)
    several = jax.jit(lambda xs: jax.lax.map(lambda x: joint(*x), xs, batch_size=batch_size))
    truth, data = several((keys, given))
    check_joint(truth)
    check_joint(data)
    if thinning is None:
        thinning = posteriors.find_thinning(jax.random.split(pilot_key, num_replications), data)
    draws = posteriors.draw(jax.random.split(run_key, num_replications), data, thinning)
    seed = int(jax.random.randint(test_key, (), 0, 2**31 - 1))
    return _result(
        {name: np.asarray(value) for name, value in truth.items()},
        draws,
        np.random.default_rng(seed),
        latent=sites.latent,
        num_draws=num_draws,
        thinning=thinning,
        kernel=repr(posteriors.kernel()),
        notes=tuple(
            f"site {n!r} was drawn by its own sampler, not exactly" for n in sites.by_chain
        ),
    )


def _ranked(
    var_names: Sequence[str] | None, latent: tuple[str, ...], deterministic: tuple[str, ...]
) -> tuple[str, ...]:
    if var_names is None:
        return latent
    unknown = sorted(set(var_names) - {*latent, *deterministic})
    if unknown or isinstance(var_names, str):
        raise ValueError(
            f"var_names must be a list of sites of {sorted((*latent, *deterministic))}, got "
            f"{var_names!r}."
        )
    return tuple(var_names)


def _result(
    truth: dict[str, np.ndarray],
    draws: dict[str, np.ndarray],
    random: np.random.Generator,
    *,
    latent: tuple[str, ...],
    num_draws: int,
    thinning: int,
    kernel: str,
    notes: tuple[str, ...],
) -> SimulationBasedCalibration:
    ranks = {name: rank_of_truth(draws[name], value, 1, random) for name, value in truth.items()}
    p_values = {name: uniformity_p_values(r, num_draws, random) for name, r in ranks.items()}
    for name, x in draws.items():
        # As the upper triangle of a Cholesky factor: there is nothing to rank.
        p_values[name] = np.where(np.all(x == x[:1, :1], (0, 1)), np.nan, p_values[name])
    ess = effective_sizes(draws)
    num = len(next(iter(ranks.values())))
    finite = all(np.isfinite(x).all() for x in draws.values())
    stuck = _stuck(draws, p_values, latent)
    of_all = np.concatenate([np.ravel(p) for p in p_values.values()])
    if np.isnan(of_all).all():
        raise ValueError(
            f"all that was to be ranked, {sorted(ranks)}, is constant: name sites in var_names, or "
            "quantities, that have a posterior."
        )
    value = float(np.min(holm(of_all[~np.isnan(of_all)])))
    # Draws that depend on each other widen the distribution of ranks by this share of its
    # variance; below one standard error of that variance, it is not to be seen.
    share = max(np.max(2 / size - 2 / num_draws) for size in ess.values())
    told_by_dependence = share > np.sqrt(0.8 / num) and value < 0.01 and not stuck.any()
    constants = np.isnan(of_all).sum()
    if constants:
        notes = (*notes, f"{constants} components are constant and have no rank")
    return SimulationBasedCalibration(
        value=value if finite and not told_by_dependence else float("nan"),
        error=0.0,
        ranks=ranks,
        p_values=p_values,
        truth=truth,
        draws=draws,
        num_draws=num_draws,
        thinning=thinning,
        ess=ess,
        num_stuck=int(stuck.sum()),
        kernel=kernel,
        notes=notes,
    )


def _stuck(
    draws: dict[str, np.ndarray], p_values: dict[str, np.ndarray], latent: tuple[str, ...]
) -> np.ndarray:
    """Return the replications in which a latent component never moved.

    A function of them, such as whether one is above 0, may be constant in one posterior.
    """
    watched = [name for name in draws if name in latent]
    moved = [have_moved(draws[n])[:, ~np.isnan(p_values[n])] for n in watched or draws]
    columns = np.concatenate([x.reshape(len(x), -1) for x in moved], 1)
    moving = columns.all(1) if watched else columns.any(1)
    return np.asarray(~moving)
