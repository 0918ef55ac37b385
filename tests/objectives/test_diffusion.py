"""A loss over time is the mean of the weighted losses at each."""

import jax
import jax.numpy as jnp
import pytest
from jax.scipy.stats import norm

from numpyro_score.objectives import DiffusionScoreMatching
from numpyro_score.sde import EDM, VE, VP, From

from .gaussian import FACTOR, MEAN, ROTATION, STANDARD_ERRORS, rows, standard_errors

SDES = {"ve": VE(0.3, 3.0), "vp": VP(t_min=0.05)}
KEY = jax.random.key(3)


def score(sde, wrong):
    """The score of the diffused Gaussian, and a rotation that does not belong to it."""
    covariance = jnp.asarray(FACTOR @ FACTOR.T)

    def network(x, t):
        alpha, sigma = sde.mean_scale(t), sde.marginal_std(t)
        at_t = alpha**2 * covariance + sigma**2 * jnp.eye(3)
        z = x - alpha * MEAN
        return -jnp.linalg.solve(at_t, z) + wrong * (1 + t) * ROTATION @ z

    return network


def excess_and_divergence(sde, weighting, weight):
    """What a wrong score costs, and half its weighted square, per row."""
    x = rows(jax.random.key(0))
    objective = DiffusionScoreMatching(sde, weighting)
    losses = [objective(score(sde, wrong), x, KEY) for wrong in (0.3, 0.0)]
    t = jax.random.uniform(KEY, (len(x),), minval=sde.t_min, maxval=sde.t_max)
    noise = jax.random.normal(jax.random.key(5), x.shape)
    x_t = sde.mean_scale(t)[:, None] * x + sde.marginal_std(t)[:, None] * noise
    h = jax.vmap(score(sde, 0.3))(x_t, t) - jax.vmap(score(sde, 0.0))(x_t, t)
    return losses[0] - losses[1], 0.5 * weight(sde, t) * jnp.sum(h**2, 1)


WEIGHTS = {
    "noise": lambda sde, t: sde.marginal_std(t) ** 2,
    "likelihood": lambda sde, t: sde.diffusion(t) ** 2,
}


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("weighting", WEIGHTS)
def test_a_wrong_score_costs_its_weighted_square(name, weighting):
    excess, divergence = excess_and_divergence(SDES[name], weighting, WEIGHTS[weighting])
    assert standard_errors(excess) > STANDARD_ERRORS
    assert abs(standard_errors(excess - divergence)) < STANDARD_ERRORS


@pytest.mark.parametrize("name", SDES)
def test_another_weight_is_seen(name):
    excess, divergence = excess_and_divergence(SDES[name], "noise", WEIGHTS["likelihood"])
    assert abs(standard_errors(excess - divergence)) > STANDARD_ERRORS


def test_the_network_learns_the_density_at_the_first_time():
    assert abs(DiffusionScoreMatching(VE(0.3, 3.0)).noise_scale - 0.3) < 1e-6


# -- where a network is trained ------------------------------------------------------------------

EDM_SDE = EDM(0.01, 30.0, data_scale=2.0)


def test_training_times_of_edm_are_the_log_normal_between_its_ends():
    t = EDM_SDE.training_times(jax.random.key(0), (20_000,))
    assert bool((t >= 0.01).all() and (t <= 30.0).all())
    logs = (jnp.log(t / 2.0) + 0.5) / 1.2
    low, high = (jnp.log(jnp.array([0.01, 30.0]) / 2.0) + 0.5) / 1.2
    for q in (-1.0, 0.0, 1.0):
        exact = (norm.cdf(q) - norm.cdf(low)) / (norm.cdf(high) - norm.cdf(low))
        assert abs((logs < q).mean() - exact) < 5 * 0.5 / jnp.sqrt(20_000)


def test_only_the_weighting_by_likelihood_needs_uniform_times():
    """A score whose weighted loss is t² / 2 shows at which times it was asked."""
    x = jnp.zeros((4_000, 1))
    score = lambda x, t: -x / t**2 + 1.0  # noqa: E731
    mean = {w: DiffusionScoreMatching(EDM_SDE, w)(score, x, KEY) for w in WEIGHTS}
    t = jnp.sqrt(2 * mean["noise"])
    assert jnp.median(t) < 2.5  # the median of the log-normal is 2 exp(-1/2)
    # Weighted by g² / 2 = t instead of t².
    assert abs(mean["likelihood"].mean() - 15.0) < 1.0


def test_a_diffusion_from_later_on_keeps_its_times():
    late = From(EDM_SDE, 1.0)
    t = late.training_times(KEY, (20_000,))
    assert bool(((t > 1.0) & (t < 30.0)).all())  # and no atom at its start
    alone = EDM_SDE.training_times(jax.random.key(0), (20_000,))
    # Uniform ones in place of those before.
    expected = ((alone > 1.0) & (alone < 3.0)).mean() + (alone < 1.0).mean() * 2 / 29
    assert abs((t < 3.0).mean() - expected) < 5 * jnp.sqrt(0.5 / 20_000)
    asked = DiffusionScoreMatching(late)(lambda x, t: -x / t**2 + 1.0, jnp.zeros((4_000, 1)), KEY)
    assert jnp.median(jnp.sqrt(2 * asked)) < 10.0
