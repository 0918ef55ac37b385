"""What a kernel says of its own run: acceptance, divergences, bias, swaps, evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from numpyro_score.diagnostics._run import last_field
from numpyro_score.diagnostics.findings import Finding, cannot_tell, judge
from numpyro_score.infer import MCLMC, SGNHT, ULA, ParticleInference, TemperedSMC

# Our warm-up ends .03 off the target, NumPyro's .08; at an acceptance beyond these the ESS suffers.
_OFF_TARGET = 0.2
# Of a step size that was given; a random walk in many dimensions does best at .234.
_ACCEPTANCE = (0.1, np.inf)
# Betancourt (2017), A conceptual introduction to Hamiltonian Monte Carlo: none.
_HAMILTONIAN = ("HMC", "NUTS", "ChEES", "GHMC", "AdjustedMCLMC")
_DIVERGING = 0.01
# Of ULA's steps, had it a test: its warm-up aims at .95.
_UNADJUSTED = 0.85
# Ten times what warm-up aims at, 5e-4: Robnik & Seljak (2024), Fluctuation without dissipation.
_ENERGY_VARIANCE = 5e-3
# The docstring of SGLD: variances are too large by this share.
_NOISE_RATIO = 0.1
# Kone & Kofke (2005) and Syed et al. (2022) aim at .2 to .5 for all pairs.
_SWAP = 0.1
_ROUND_TRIPS = 5
# A Bayes factor is then known up to a factor of 1.6.
_EVIDENCE = 0.5


def kernel_findings(mcmc: Any, fields: Mapping[str, Any]) -> list[Finding]:
    """Return what the kernel of a finished run, or its fields, say."""
    if isinstance(mcmc, ParticleInference):
        return _particles(mcmc)
    kernel = mcmc.sampler
    rows = [*_acceptance(mcmc, kernel, fields), *_diverging(kernel, fields)]
    rows += _bias(mcmc, kernel, fields)
    return rows + _swaps(mcmc)


def _acceptance(mcmc: Any, kernel: Any, fields: Mapping[str, Any]) -> list[Finding]:
    name = "acceptance"
    if getattr(kernel, "bias_statistic", "") and last_field(mcmc, "accept_prob") is None:
        return []  # a kernel without a test
    mean = last_field(mcmc, "mean_accept_prob")
    if mean is None and "accept_prob" in fields:
        mean = np.asarray(fields["accept_prob"]).mean(1)
    if mean is None:
        return [cannot_tell(name, 'it was not collected: run(..., extra_fields=("accept_prob",)).')]
    values = np.atleast_1d(np.asarray(mean, float))
    target = getattr(kernel, "_target_accept_prob", None)
    adapted = getattr(kernel, "_adapt_step_size", True)
    low, high = _ACCEPTANCE
    error = np.nan
    if target is not None and adapted:
        # That of each step is at most 1/2 off its mean, and steps are not independent.
        error = 0.5 / np.sqrt(max(mcmc.num_samples / 5, 1))
        low, high = target - _OFF_TARGET, min(target + _OFF_TARGET, 1.0)
    below, above = low - values.min(), values.max() - high
    worst = values.min() if below >= above else values.max()
    advice = (
        "steps are too large: give warm-up more steps, or a smaller step_size."
        if worst < low
        else "steps are smaller than they need be: give warm-up more steps."
    )
    return [judge(name, worst, (low, high), advice, error=error, num_errors=3)]


def _diverging(kernel: Any, fields: Mapping[str, Any]) -> list[Finding]:
    name = "share of steps that diverged"
    if "diverging" not in fields:
        return [cannot_tell(name, 'it was not collected: run(..., extra_fields=("diverging",)).')]
    share = float(np.mean(np.asarray(fields["diverging"])))
    limit = 0.0 if type(kernel).__name__ in _HAMILTONIAN else _DIVERGING
    advice = (
        "the density bends more than the steps follow: a higher target_accept_prob, or another "
        "parametrization (LocScaleReparam). Parts of the posterior may be missing."
    )
    return [judge(name, share, (-np.inf, limit), advice)]


def _bias(mcmc: Any, kernel: Any, fields: Mapping[str, Any]) -> list[Finding]:
    if not getattr(kernel, "bias", ""):
        return []
    if isinstance(kernel, ULA):
        name = "acceptance, had it a test"
        if "energy_error" not in fields:
            why = 'it was not collected: run(..., extra_fields=("energy_error",)).'
            return [cannot_tell(name, why)]
        # The mean of the error is 0 for a Gaussian, however large the step; its spread is not.
        error = np.asarray(fields["energy_error"], float)
        value = np.exp(np.minimum(np.nan_to_num(error, nan=-np.inf), 0)).mean(1).min()
        return [judge(name, value, (_UNADJUSTED, np.inf), _SMALLER)]
    statistic = getattr(kernel, "bias_statistic", "")
    value = last_field(mcmc, statistic) if statistic else None
    if value is None:
        return [cannot_tell("bias", f"the kernel is biased ({kernel.bias}), and no number tells")]
    worst = float(np.max(np.asarray(value, float)))
    if isinstance(kernel, MCLMC):
        return [judge("energy variance", worst, (-np.inf, _ENERGY_VARIANCE), _SMALLER)]
    if isinstance(kernel, SGNHT):
        return []  # its thermostat takes the noise up
    if statistic == "noise_ratio":
        advice = "draws are noise of the minibatches in part: larger ones, or a smaller step."
        return [judge("noise of minibatches", worst, (-np.inf, _NOISE_RATIO), advice)]
    return [cannot_tell(statistic, f"{worst:.3g}; what is too much for this kernel is not known")]


_SMALLER = "the step size biases the draws: a smaller one, or MALA."


def _swaps(mcmc: Any) -> list[Finding]:
    swaps = last_field(mcmc, "mean_swap_accept_prob")
    if swaps is None:
        return []
    rates = np.atleast_2d(np.asarray(swaps, float))
    pair = int(rates.min(0).argmin())
    advice = f"levels {pair} and {pair + 1} are too far apart: more replicas, or a longer warm-up."
    rows = [judge("least rate of swaps", rates.min(), (_SWAP, np.inf), advice)]
    trips = np.atleast_1d(np.asarray(last_field(mcmc, "journeys.round_trips"), float))
    advice = (
        "few walkers went from the posterior to the top and back, so that the weights of modes "
        "are uncertain whatever R-hat says: run longer."
    )
    return [*rows, judge("round trips (least chain)", trips.min(), (_ROUND_TRIPS, np.inf), advice)]


def _particles(mcmc: Any) -> list[Finding]:
    if not isinstance(mcmc, TemperedSMC):
        return [cannot_tell("bias", f"the method is biased ({mcmc.bias}), and no number tells")]
    name = "error of the log evidence"
    if np.isnan(mcmc.log_evidence_error):
        return [cannot_tell(name, "one run has no other to compare with: num_chains=4.")]
    advice = "runs disagree: more particles, or more moves."
    return [judge(name, mcmc.log_evidence_error, (-np.inf, _EVIDENCE), advice)]
