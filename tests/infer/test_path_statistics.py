"""What the two path rules are stationary for: modes of a mixture, and fields with curl."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from jax.scipy.stats import norm
from numpyro.diagnostics import effective_sample_size
from numpyro.distributions import constraints
from numpyro.infer import MCMC

from numpyro_score.distributions import ScoreDistribution
from numpyro_score.infer import (
    GHMC,
    HMC,
    MALA,
    AdjustedMCLMC,
    Barker,
    ModelError,
    _path_checks,
    _score_sites,
)
from tests.statistics import MIN_ESS, Moments, assert_recovers

pytestmark = pytest.mark.statistics

NUM_ERRORS = 5.0


def run(kernel, *, num_warmup=1000, num_samples=4000, num_chains=4, fields=(), seed=0):
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(seed), extra_fields=fields)
    return mcmc


PRECISION = jnp.array([[2.0, 1.2], [1.2, 1.0]])
MEAN = jnp.array([3.0, -1.0])


def mixed_model():
    """Score sites beside sites with a density, one of which depends on them."""
    x = numpyro.sample("x", ScoreDistribution(lambda x: -PRECISION @ (x - MEAN), (2,)))
    skewed = ScoreDistribution(lambda w: 3 / w - 2, (1,), support=constraints.positive)
    numpyro.sample("w", skewed)
    numpyro.sample("loc", dist.Normal(x.sum(), 0.5))


_COVARIANCE = np.linalg.inv(PRECISION)
EXACT = {
    "x": Moments(np.asarray(MEAN), np.sqrt(np.diag(_COVARIANCE))),
    "w": Moments(np.array([2.0]), np.array([1.0])),
    "loc": Moments(np.array(2.0), np.sqrt(_COVARIANCE.sum() + 0.25)),
}


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (MALA, {"adaptation": "pooled", "dense_mass": True}),
        (Barker, {"dense_mass": True}),
        (HMC, {"num_steps": 3, "dense_mass": True}),
        (GHMC, {"dense_mass": True}),
        (AdjustedMCLMC, {}),
    ],
)
def test_every_kernel_recovers_a_model_with_score_sites_along_the_local_path(kernel, options):
    kernel = kernel(mixed_model, path="local", path_nodes=7, **options)
    draws = run(kernel, num_samples=6000).get_samples(group_by_chain=True)
    for name, exact in EXACT.items():
        assert_recovers(draws[name], exact)


WEIGHT = 0.2


class Mixture(NamedTuple):
    """A mode of width 1 at 0 with the weight 1/5, and one with 4/5."""

    distance: float
    width: float
    step_size: float
    num_samples: int

    @property
    def border(self):
        return self.distance / (1 + self.width)

    @property
    def weight_on_the_left(self):
        left, right = self.border, (self.border - self.distance) / self.width
        return WEIGHT * norm.cdf(left) + (1 - WEIGHT) * norm.cdf(right)

    def __call__(self):
        def log_density(x):
            right = (x[0] - self.distance) / self.width
            a = jnp.log(WEIGHT) - x[0] ** 2 / 2
            return jnp.logaddexp(a, jnp.log((1 - WEIGHT) / self.width) - right**2 / 2)

        numpyro.sample("x", ScoreDistribution(jax.grad(log_density), (1,), num_nodes=24))


EVEN = Mixture(distance=4.0, width=1.0, step_size=1.93, num_samples=4000)
UNEVEN = Mixture(distance=3.0, width=0.5, step_size=0.6, num_samples=8000)


def weight_of_left_mode(mixture, **options):
    """Its error with a standard error, and the acceptance."""
    kernel = MALA(
        mixture,
        step_size=mixture.step_size,
        adapt_step_size=False,
        adapt_mass_matrix=False,
        **options,
    )
    mcmc = run(
        kernel,
        num_warmup=200,
        num_samples=mixture.num_samples,
        num_chains=128,
        fields=("accept_prob",),
    )
    left = np.asarray(mcmc.get_samples(group_by_chain=True)["x"][..., 0] < mixture.border, float)
    ess = effective_sample_size(left)
    assert ess > MIN_ESS
    error = NUM_ERRORS * left.std() / np.sqrt(ess)
    accept_prob = mcmc.get_extra_fields()["accept_prob"].mean()
    return left.mean() - mixture.weight_on_the_left, error, accept_prob


def test_simpson_keeps_the_weight_of_a_mode_and_the_trapezoid_rule_does_not():
    off, error, _ = weight_of_left_mode(EVEN)
    assert abs(off) < error < 0.02, "the anchored rule is exact"
    off, error, accept_prob = weight_of_left_mode(EVEN, path="local", path_nodes=3)
    assert abs(accept_prob - 0.57) < 0.01
    assert abs(off) + error < 0.02
    off, error, _ = weight_of_left_mode(EVEN, path="local", path_nodes=2)
    assert off - error > 0.1


def test_modes_of_different_width_need_more_than_simpson():
    off, error, _ = weight_of_left_mode(UNEVEN, path="local", path_nodes=3)
    assert off - error > 0.02
    off, error, accept_prob = weight_of_left_mode(UNEVEN, path="local", path_nodes=7)
    assert abs(accept_prob - 0.53) < 0.02
    assert abs(off) + error < 0.02


def asymmetric_rule(num_nodes):
    """Gauss-Radau with two nodes, exact to degree 2; the weight of the start is 0."""
    return np.array([0.0, 1 / 3, 1.0]), np.array([0.0, 0.75, 0.25])


def test_catches_a_rule_that_is_not_symmetric(monkeypatch):
    monkeypatch.setattr(_score_sites, "gauss_lobatto", asymmetric_rule)
    off, error, _ = weight_of_left_mode(EVEN, path="local", path_nodes=3)
    assert off - error > 0.01


# -- curl ------------------------------------------------------------------------------------------

OMEGA = 1.5
ROTATION = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
CURVATURE = jnp.array([1.0, 10.0])


def model_with_curl():
    """exp(φ) is N(0, diag(1, 1/10)): the anchored integral from the origin does not see ω."""
    field = lambda x: -CURVATURE * x + OMEGA * ROTATION @ x  # noqa: E731
    x = numpyro.sample("x", ScoreDistribution(field, (2,)))
    # Here the correlation shows that the curl brings about.
    numpyro.deterministic("mix", x[..., 0] + math.sqrt(10) * x[..., 1])


NO_CORRELATION = Moments(np.array(0.0), np.array(math.sqrt(2.0)))


# In a metric in which a linear field is round, its curl does no harm.
UNTUNED = {"adapt_mass_matrix": False, "target_accept_prob": 0.8}


def test_with_curl_the_anchored_rule_is_stationary_for_exp_phi():
    mcmc = run(MALA(model_with_curl, **UNTUNED), num_samples=10_000, num_chains=16)
    draws = mcmc.get_samples(group_by_chain=True)
    assert_recovers(draws["x"], Moments(np.zeros(2), 1 / np.sqrt(CURVATURE)))
    assert_recovers(draws["mix"], NO_CORRELATION)


def test_with_curl_the_local_rule_is_refused_and_would_be_wrong(monkeypatch):
    kernel = MALA(model_with_curl, path="local", **UNTUNED)
    relative = math.sqrt(2) * OMEGA / math.sqrt(101)
    with pytest.raises(ModelError, match=rf"'x' has a relative curl of {relative:.2g}.*anchored"):
        run(kernel)
    monkeypatch.setattr(_path_checks, "MAX_CURL", math.inf)
    draws = run(kernel, num_samples=10_000, num_chains=16).get_samples(group_by_chain=True)
    with pytest.raises(AssertionError, match="sd is"):
        assert_recovers(draws["mix"], NO_CORRELATION)
