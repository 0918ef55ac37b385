"""Statistical assertions: gate on the ESS first, then on Monte Carlo standard errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

MIN_ESS = 400
NUM_ERRORS = 5.0


class Moments(NamedTuple):
    """Exact mean and standard deviation, and standard errors where they are estimates."""

    mean: np.ndarray
    sd: np.ndarray
    mean_error: np.ndarray | float = 0.0
    sd_error: np.ndarray | float = 0.0


def assert_recovers(draws: np.ndarray, exact: Moments, min_ess: float = MIN_ESS) -> None:
    """Assert that draws ``(chains, draws, …)`` have the exact mean and standard deviation.

    The error of a mean is sd / √ESS; that of a variance comes from the draws' squared deviations
    in the same way, and that of an sd from it by the delta method.
    """
    draws = np.asarray(draws, dtype=np.float64)
    squares = (draws - draws.mean((0, 1))) ** 2
    ess, ess_squares = effective_sample_size(draws), effective_sample_size(squares)
    smallest = np.min([np.min(ess), np.min(ess_squares)])
    assert smallest >= min_ess, f"ESS {smallest:.0f} < {min_ess}: too few draws to tell"
    r_hat = np.max(split_gelman_rubin(draws))
    assert r_hat < 1.05, f"R-hat {r_hat:.3f}"

    mean, sd = draws.mean((0, 1)), draws.std((0, 1))
    mean_error = np.hypot(sd / np.sqrt(ess), exact.mean_error)
    sd_error = np.hypot(squares.std((0, 1)) / np.sqrt(ess_squares) / (2 * sd), exact.sd_error)
    z_mean = np.max(np.abs(mean - exact.mean) / mean_error)
    z_sd = np.max(np.abs(sd - exact.sd) / sd_error)
    assert z_mean < NUM_ERRORS, f"mean is {z_mean:.1f} standard errors off: {mean}"
    assert z_sd < NUM_ERRORS, f"sd is {z_sd:.1f} standard errors off: {sd}"
