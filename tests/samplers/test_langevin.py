"""Langevin runs that are long enough draw from the density; each run is an independent draw."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.distributions import constraints
from scipy.special import digamma, polygamma

from numpyro_score.distributions import EnergyDistribution, ScoreDistribution
from numpyro_score.networks import EnergyMLP
from numpyro_score.samplers import Langevin, langevin
from tests.statistics import Moments, assert_recovers

NUM_DRAWS = 4000
# Shifted and anisotropic; and skewed (the log of a Gamma), where a wrong sign cannot hide.
LOC, SCALE = np.array([3.0, -1.0]), np.array([1.5, 0.5])
SHAPE, RATE = 2.0, 3.0
EXACT = Moments(
    np.array([*LOC, digamma(SHAPE) - np.log(RATE)]),
    np.array([*SCALE, np.sqrt(polygamma(1, SHAPE))]),
)


def log_density(x):
    """Two normals and the log of a Gamma."""
    return dist.Normal(LOC, SCALE).log_prob(x[:2]).sum() + SHAPE * x[2] - RATE * jnp.exp(x[2])


def assert_independent_draws(draws, exact):
    """Whoever is independent may be sorted into four chains for the check."""
    assert_recovers(np.asarray(draws).reshape(4, len(draws) // 4, -1), exact, NUM_DRAWS / 2)


def run(logdensity_fn, start, seed=0, **options):
    keys = random.split(random.key(seed), NUM_DRAWS)
    return jax.jit(jax.vmap(lambda key: langevin(key, logdensity_fn, start, **options)))(keys)


def test_draws_of_a_shifted_anisotropic_and_skewed_density():
    assert_independent_draws(run(log_density, jnp.zeros(3), step_size=0.15, num_steps=300), EXACT)


def test_a_wrong_sign_and_too_few_steps_are_noticed():
    flipped = lambda x: log_density(x.at[2].multiply(-1))  # noqa: E731
    with pytest.raises(AssertionError, match="mean is"):
        assert_independent_draws(run(flipped, jnp.zeros(3), step_size=0.15, num_steps=300), EXACT)
    with pytest.raises(AssertionError, match="mean is"):
        assert_independent_draws(run(log_density, jnp.zeros(3), step_size=0.15, num_steps=3), EXACT)


@pytest.mark.parametrize("step_size", [0.4, 0.8])
def test_without_the_test_every_variance_grows_by_exactly_the_known_factor(step_size):
    """ULA on a standard normal ends at the variance 1 / (1 - ε/2); MALA at 1."""
    standard = lambda x: -0.5 * jnp.sum(x**2)  # noqa: E731
    options = {"step_size": step_size, "num_steps": 100}
    biased = Moments(np.zeros(4), np.full(4, 1 / np.sqrt(1 - step_size / 2)))
    unbiased = Moments(np.zeros(4), np.ones(4))
    ula = run(standard, jnp.zeros(4), metropolis=False, **options)
    mala = run(standard, jnp.zeros(4), metropolis=True, **options)
    assert_independent_draws(ula, biased)
    assert_independent_draws(mala, unbiased)
    for draws, wrong in [(ula, unbiased), (mala, biased)]:
        with pytest.raises(AssertionError, match="sd is"):
            assert_independent_draws(draws, wrong)


def test_position_of_any_shape():
    density = lambda x: -0.5 * jnp.sum((x - 1) ** 2)  # noqa: E731
    out = langevin(random.key(0), density, jnp.zeros((2, 3)), step_size=0.1, num_steps=2)
    assert out.shape == (2, 3)
    out = langevin(random.PRNGKey(0), density, jnp.zeros(()), step_size=0.1, num_steps=2)
    assert out.shape == ()


# -- as the sampler of a distribution ----------------------------------------------------------


def test_draws_on_a_positive_support_are_on_it_and_have_one_jacobian():
    d = EnergyDistribution(
        lambda x: jnp.sum(RATE * x - (SHAPE - 1) * jnp.log(x)),
        (2,),
        support=constraints.positive,
        # Larger steps are refused for ever where e^v is steep: some starts would stay.
        sampler=Langevin(num_steps=400, step_size=0.02),
    )
    draws = d.sample(random.key(0), (NUM_DRAWS,))
    assert bool(d.support(draws).all())
    gamma = Moments(np.full(2, SHAPE / RATE), np.full(2, np.sqrt(SHAPE) / RATE))
    assert_independent_draws(draws, gamma)


def test_draws_of_a_score_distribution_given_each_condition():
    condition = jnp.array([[0.0], [5.0]])
    d = ScoreDistribution(
        lambda x, c: 4 * (c - x),
        (1,),
        condition=condition,
        sampler=Langevin(num_steps=100, step_size=0.1),
        num_nodes=2,
    )
    draws = d.sample(random.key(0), (NUM_DRAWS,))
    assert draws.shape == (NUM_DRAWS, 2, 1)
    assert_independent_draws(draws, Moments(np.array([0.0, 5.0]), np.full(2, 0.5)))


def test_runs_start_at_the_gaussian_base_of_the_network():
    """A run of one tiny step stays where it starts."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(300, 3)) @ np.diag([10.0, 1.0, 0.1]) @ rng.normal(size=(3, 3)) + 7.0
    network = EnergyMLP(3, width=8, key=random.key(0)).fit_base(data)
    start = Langevin(num_steps=1, step_size=1e-10)
    draws = EnergyDistribution(network, (3,), sampler=start).sample(random.key(1), (NUM_DRAWS,))
    white = (np.asarray(draws) - network.base.mean) @ network.base.whitening.T
    assert_independent_draws(white, Moments(np.zeros(3), np.ones(3)))
    products = white[:, [0, 0, 1]] * white[:, [1, 2, 2]]
    assert np.abs(products.mean(0)).max() < 5 / np.sqrt(NUM_DRAWS), "and uncorrelated"
    with pytest.raises(AssertionError, match="off"):
        assert_independent_draws(draws, Moments(np.zeros(3), np.ones(3)))
