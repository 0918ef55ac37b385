"""MALA from its default start against published reference posteriors, some of them badly scaled."""

from __future__ import annotations

import importlib.util
from functools import cache

import arviz as az
import numpy as np
import pytest
from jax import random
from numpyro.infer import MCMC

from numpyro_score.infer import MALA
from tests.shared_data import shared_data
from tests.statistics import Moments, assert_recovers

_SPEC = importlib.util.spec_from_file_location(
    "posteriordb_models", shared_data("posteriordb") / "models.py"
)
posteriordb = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(posteriordb)

NUM_CHAINS, NUM_WARMUP, NUM_SAMPLES = 4, 1000, 3000
MIN_ESS, MAX_R_HAT = 200, 1.02
NUM_REFERENCE_DRAWS = 10_000


@cache
def sample(name):
    """Draws ``(chains, draws, parameters)`` of each site that has a reference."""
    model, kwargs, sites = posteriordb.get(name)
    mcmc = MCMC(
        MALA(model, dense_mass=True),
        num_warmup=NUM_WARMUP,
        num_samples=NUM_SAMPLES,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), **kwargs)
    draws = mcmc.get_samples(group_by_chain=True)
    return {s: np.asarray(draws[s]).reshape(NUM_CHAINS, NUM_SAMPLES, -1) for s in sites}


def reference(name):
    """Published moments by site, with the error that 10,000 independent draws leave."""
    _, means, sds = posteriordb.reference(name)
    return {
        site: Moments(
            means[site].ravel(),
            sd := sds[site].ravel(),
            mean_error=sd / np.sqrt(NUM_REFERENCE_DRAWS),
            sd_error=sd / np.sqrt(2 * NUM_REFERENCE_DRAWS),
        )
        for site in means
    }


@pytest.mark.parametrize("name", posteriordb.NAMES)
def test_reference_posterior_is_reached(name):
    assert NUM_CHAINS * (NUM_WARMUP + NUM_SAMPLES) <= 40_000
    exact = reference(name)
    for site, draws in sample(name).items():
        for column in np.moveaxis(draws, -1, 0):
            assert az.ess(column, method="bulk") >= MIN_ESS, site
            assert az.rhat(column) <= MAX_R_HAT, site
        # A rare excursion of a heavy tail (tau of eight schools) halves the ESS of squares.
        assert_recovers(draws, exact[site], min_ess=MIN_ESS / 2)


def test_a_moved_or_widened_reference_would_be_noticed():
    name = "kidiq-kidscore_momhs"
    draws, exact = sample(name)["beta"], reference(name)["beta"]
    with pytest.raises(AssertionError, match="mean is"):
        assert_recovers(draws, exact._replace(mean=exact.mean + 0.2 * exact.sd))
    with pytest.raises(AssertionError, match="sd is"):
        assert_recovers(draws, exact._replace(sd=1.2 * exact.sd))
