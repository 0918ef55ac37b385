"""ArviZ's ``from_numpyro``, with what the kernel has to say of its draws."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from numpyro_score.diagnostics._groups import has_group
from numpyro_score.diagnostics._run import last_field
from numpyro_score.infer import TemperedSMC

_PACKAGES = ("numpyro_score", "numpyro", "blackjax", "jax", "arviz")


def from_numpyro(mcmc: Any, **kwargs: Any) -> Any:
    """Return ``arviz.from_numpyro(mcmc, **kwargs)`` with attributes that name the kernel.

    R-hat and ESS of a biased kernel look as good as those of an exact one. So the groups
    ``posterior`` and ``sample_stats`` (where there is one) tell which it was, also after a file
    has passed through other hands:

    - ``kernel`` - its ``repr``; its class, if it has none of its own.
    - ``biased`` - why the draws are biased; absent for an exact kernel.
    - the statistic that tells how large the bias is, one number for each chain:
      ``energy_variance`` of ``ULA`` and ``MCLMC``, ``noise_ratio`` of the
      kernels with minibatches. ``Exchange`` has none.

    :func:`to_arviz` is this with more groups, names of axes, tuning and versions.

    :param mcmc: a :class:`numpyro.infer.MCMC` after its run, with any kernel.
    :param kwargs: ``coords``, ``dims`` and the other arguments of ``arviz.from_numpyro``.
    :return: an ``InferenceData`` (ArviZ 0.23) or a ``DataTree`` (ArviZ 1).

    >>> import jax
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.diagnostics import from_numpyro
    >>> from numpyro_score.infer import ULA
    >>> kernel = ULA(potential_fn=lambda z: 0.5 * z**2)
    >>> mcmc = MCMC(kernel, num_warmup=50, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), init_params=jax.numpy.zeros(()))
    >>> from_numpyro(mcmc)["posterior"].attrs["biased"]
    'no Metropolis test'
    """
    import arviz as az

    data = az.from_numpyro(mcmc, **kwargs)
    say_of_run(data, kernel_attributes(mcmc))
    return data


def say_of_run(data: Any, said: dict[str, Any]) -> None:
    """Give the groups of a run these attributes; a kernel can be without statistics."""
    for group in ("posterior", "sample_stats"):
        if has_group(data, group):
            data[group].attrs.update(said)


def kernel_attributes(mcmc: Any) -> dict[str, Any]:
    """Return what names the kernel, and its bias, for a NetCDF file."""
    kernel = mcmc.sampler if getattr(mcmc, "last_state", None) is not None else mcmc
    # That of an object would be its address.
    nameless = type(kernel).__repr__ is object.__repr__
    said: dict[str, Any] = {"kernel": type(kernel).__name__ if nameless else repr(kernel)}
    if not getattr(kernel, "bias", ""):
        return said
    said |= {"biased": kernel.bias}
    statistic = getattr(kernel, "bias_statistic", "")
    return said | (_numbers(mcmc, statistic) if statistic else {})


def tuning_attributes(mcmc: Any) -> dict[str, Any]:
    """Return what warm-up found, and what else a run has to say, for a NetCDF file."""
    said = _numbers(mcmc, "adapt_state.step_size") | _numbers(mcmc, "mean_accept_prob")
    # L of the microcanonical kernels.
    said |= _numbers(mcmc, "adapt_state.L")
    said |= _metric(mcmc)
    swaps = last_field(mcmc, "mean_swap_accept_prob")
    if swaps is not None:
        said["least_swap_accept_prob"] = np.atleast_2d(np.asarray(swaps, float)).min(-1)
        said["mean_swap_accept_prob"] = np.atleast_2d(np.asarray(swaps, float)).mean(0)
        said |= _numbers(mcmc, "journeys.round_trips")
        levels = np.atleast_2d(np.asarray(last_field(mcmc, "levels.noise_scale"), float))
        said["noise_levels"] = levels[0]
    if isinstance(mcmc, TemperedSMC):
        said["log_evidence"] = mcmc.log_evidence
        said["log_evidence_error"] = mcmc.log_evidence_error
    return said


def versions() -> dict[str, str]:
    """Return the versions of what made the draws."""
    return {f"{name}_version": version(name) for name in _PACKAGES}


def _numbers(mcmc: Any, name: str) -> dict[str, Any]:
    """Return a field of the last state, one number for each chain, by its last name."""
    value = last_field(mcmc, name)
    if value is None:
        return {}
    return {name.rpartition(".")[2]: np.atleast_1d(np.asarray(value, float))}


def _metric(mcmc: Any) -> dict[str, Any]:
    """Say of a metric what it is, and the least and largest variance of a parameter in it."""
    metric: Any = last_field(mcmc, "adapt_state.inverse_mass_matrix")
    if metric is None:
        return {}
    if hasattr(metric, "sigma"):
        return {"metric": f"rank {np.shape(metric.lam)[-1]}"}
    pooled = getattr(mcmc.sampler, "_pooled", False)
    num_axes = 1 if mcmc.num_chains > 1 and not pooled else 0
    # NumPyro's has one matrix for each block of sites.
    parts = [np.asarray(part, float) for part in jax.tree.leaves(metric)]
    dense = [part.ndim - num_axes == 2 for part in parts]
    variances = [
        np.diagonal(part, axis1=-2, axis2=-1) if is_dense else part
        for part, is_dense in zip(parts, dense, strict=True)
    ]
    return {
        "metric": "dense" if any(dense) else "diagonal",
        "metric_least_variance": float(min(part.min() for part in variances)),
        "metric_largest_variance": float(max(part.max() for part in variances)),
    }
