"""One table of what a finished run says of itself."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from numpyro_score._typing import Array
from numpyro_score.diagnostics._chain_findings import mixing
from numpyro_score.diagnostics._kernel_findings import kernel_findings
from numpyro_score.diagnostics._run import check_run, draws_by_site, fields_by_name
from numpyro_score.diagnostics._scores import NoScore, Scored, score_draws
from numpyro_score.diagnostics._stein_findings import (
    MAX_POINTS,
    SCALE,
    STEIN,
    scale_finding,
    stein_finding,
)
from numpyro_score.diagnostics.arviz import kernel_attributes
from numpyro_score.diagnostics.findings import Finding, Findings, cannot_tell
from numpyro_score.infer import ParticleInference

_MAX_SCORED = 4_000
# Autocorrelation times between two draws of the Stein test.
_APART = 1.5
_WRONG_DENSITY = (
    "draws do not follow the density of the model: a step size that biases them, a chain that has "
    "not arrived, or a score that is not the gradient of the density."
)


def report(mcmc: Any, *, key: Array | None = None, verbose: bool = True) -> Findings:
    r"""Print a table of what a finished run says of itself, each line with ✓, ✗ or ?.

    - Draws: whether they are finite, whether each chain moved, R-hat (at most 1.01, or what chance
      makes of so few draws), bulk and tail ESS (100 for each chain); Vehtari et al. (2021).
    - The kernel: acceptance (within 0.2 of its target), divergences (none for Hamiltonian kernels,
      at most 1% of the steps of others); for biased ones the size of the bias, by the acceptance
      that :class:`~numpyro_score.infer.ULA` would have, the energy variance of
      :class:`~numpyro_score.infer.MCLMC`, the noise of minibatches. Swap rates (at least 0.1) and
      round trips (5 for each chain) of :class:`~numpyro_score.infer.ReplicaExchange`. The error of
      the log evidence of :class:`~numpyro_score.infer.TemperedSMC`.
    - Draws and density together, from the score s at the unconstrained draws z: the mean of
      :math:`-(z - \bar z) \cdot s / d`, which is 1 for draws of the posterior and off by as much
      as variances are (within 0.1); and a :func:`stein_test` of at most 500 draws that are thinned
      until they are nearly independent (p ≥ 0.001). This is where a kernel's bias shows that R-hat
      does not see.

    A number fails where it is outside by more than four standard errors. A ✗ is by chance in fewer
    than one of 100 tables. What was not collected gets a ?, and what to ask for.

    :param mcmc: a :class:`numpyro.infer.MCMC`, one of ours, or particles, after its run.
    :param key: a random key, for the bootstrap of the Stein test.
    :param verbose: whether to print the table.
    :return: its rows, with name, value, error, threshold, whether it passed, and advice.
    :raises RuntimeError: the run has not been.
    :raises TypeError: ``mcmc`` is none.

    >>> import jax, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.diagnostics import report
    >>> from numpyro_score.infer import MALA
    >>> def model():
    ...     numpyro.sample("x", dist.Normal(0.0, 1.0))
    >>> mcmc = MCMC(MALA(model), num_warmup=300, num_samples=1_000, progress_bar=False)
    >>> mcmc.run(jax.random.key(0))
    >>> table = report(mcmc, verbose=False)
    >>> table.passed, table["R-hat"].value < 1.01
    (True, True)
    """
    check_run(mcmc)
    key = jax.random.key(0) if key is None else key
    are_chains = not isinstance(mcmc, ParticleInference)
    fields = fields_by_name(mcmc)
    mixed = mixing(draws_by_site(mcmc), are_chains)
    rows = [*mixed.rows, *kernel_findings(mcmc, fields)]
    rows += _density(mcmc, key, mixed.ess)
    title = f"report on {kernel_attributes(mcmc)['kernel']}"
    if are_chains:
        title += f", {mcmc.num_chains} × {mcmc.num_samples // mcmc.thinning:,} draws"
    findings = Findings(title, tuple(rows))
    if verbose:
        findings.show()
    return findings


def _density(mcmc: Any, key: Array, ess: float) -> list[Finding]:
    """Return what draws and the score of the model say together."""
    names = (SCALE, STEIN)
    total = mcmc.num_chains * mcmc.num_samples // mcmc.thinning
    stride = max(1, -(-total // _MAX_SCORED))
    try:
        scored = score_draws(mcmc, slice(None, None, stride))
    except NoScore as error:
        return [cannot_tell(name, str(error)) for name in names]
    if not all(np.isfinite(x).all() for x in scored):
        why = "the score is not finite at some draw"
        return [Finding(name, np.nan, passed=False, advice=why) for name in names]
    if np.isnan(ess):
        return [cannot_tell(name, "the ESS is not known") for name in names]
    scale = scale_finding(*scored, _WRONG_DENSITY)
    points, scores = _independent(scored, ess)
    return [scale, stein_finding(key, points, scores, _WRONG_DENSITY, "independent draws")]


def _independent(scored: Scored, ess: float) -> tuple[np.ndarray, np.ndarray]:
    """Return draws of all chains, thinned until they are nearly independent."""
    z, s = scored
    num_chains, num_draws, size = z.shape
    wanted = min(ess / _APART, MAX_POINTS, num_chains * num_draws)
    stride = max(1, int(np.ceil(num_chains * num_draws / max(wanted, 1))))
    return z[:, ::stride].reshape(-1, size), s[:, ::stride].reshape(-1, size)
