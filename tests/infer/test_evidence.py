"""What a log evidence holds where the likelihood is unnormalized."""

from __future__ import annotations

import warnings

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random

from numpyro_score.distributions import EnergyDistribution
from numpyro_score.infer import TemperedSMC

Y = jnp.full(3, 0.5)
LOG_Z = 1.5 * np.log(2 * np.pi)


def evidence(log_normalizer):
    noise = EnergyDistribution(lambda e: 0.5 * jnp.sum(e**2), (3,), log_normalizer=log_normalizer)

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("error", noise, obs=y - mu)

    smc = TemperedSMC(model, 500, progress_bar=False)
    smc.run(random.key(0), Y)
    return smc.log_evidence


def test_an_unnormalized_likelihood_is_told_by_name():
    covariance = jnp.eye(3) + 1
    exact = dist.MultivariateNormal(jnp.zeros(3), covariance).log_prob(Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(evidence(LOG_Z), exact, atol=0.1)
    with pytest.warns(UserWarning, match=r"lacks log Z of the unnormalized 'error'"):
        np.testing.assert_allclose(evidence(None), exact + LOG_Z, atol=0.1)
