"""Posteriors of linear data under a mixture of 25 normals, against exact draws of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.samplers.guidance import Measurement, twisted_diffusion
from numpyro_score.sde import VE
from tests.mixtures import Mixture
from tests.shared_data import shared_data

pytestmark = pytest.mark.statistics

INSTANCE = shared_data("gmm_inverse") / "paper_dx8_dy1.npz"
SDE = VE(0.02, 95.0)
# Draws come out of more particles by systematic resampling: nearly as even as exact ones.
NUM_PARTICLES, NUM_DRAWS, NUM_STEPS = 6_000, 1_000, 100


def sliced_wasserstein(a, b):
    along = np.random.default_rng(0).normal(size=(a.shape[1], 100))
    along /= np.linalg.norm(along, axis=0)
    return np.abs(np.sort(a @ along, axis=0) - np.sort(b @ along, axis=0)).mean()


def ratio_to_exact_draws():
    """Distance to exact draws, over that between two sets of exact draws."""
    data = dict(np.load(INSTANCE))
    covariances = np.broadcast_to(data["prior_covariances"], (25, 8, 8))
    prior = Mixture(data["prior_weights"], data["prior_means"], covariances)
    matrix = jnp.asarray(data["A"], float)
    measurement = Measurement(
        lambda x: matrix @ x, jnp.asarray(data["y"], float), float(np.sqrt(data["noise_variance"]))
    )
    start, walk, choose = jax.random.split(jax.random.key(0), 3)
    x = SDE.prior((8,)).sample(start, (NUM_PARTICLES,))
    found = twisted_diffusion(walk, prior.score(SDE), SDE, measurement, x, num_steps=NUM_STEPS)
    marks = (np.arange(NUM_DRAWS) + float(jax.random.uniform(choose))) / NUM_DRAWS
    weights = np.exp(np.asarray(found.log_weights, float))
    draws = np.asarray(found.particles)[np.searchsorted(np.cumsum(weights / weights.sum()), marks)]
    exact = data["posterior_draws"].reshape(4, 1_000, 8)
    floor = np.mean([sliced_wasserstein(exact[i], exact[j]) for i in range(4) for j in range(i)])
    distance = np.mean([sliced_wasserstein(draws, other) for other in exact])
    return distance / floor, float(found.log_evidence) - float(data["log_evidence"])


def test_draws_are_as_near_as_exact_ones():
    ratio, evidence = ratio_to_exact_draws()
    assert ratio < 1.5
    assert abs(evidence) < 0.2


def test_catches_a_measurement_that_is_forgotten_in_the_end(monkeypatch):
    right = Measurement.log_prob
    monkeypatch.setattr(Measurement, "log_prob", lambda self, x: 0.25 * right(self, x))
    assert ratio_to_exact_draws()[0] > 1.5
