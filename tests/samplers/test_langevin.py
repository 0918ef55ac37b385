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
from numpyro_score.samplers import Langevin, langevin, tune_step_size
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
        sampler=Langevin(num_steps=400),
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
        sampler=Langevin(num_steps=200),
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
    start = Langevin(num_steps=1, step_size=1e-10, adapt_step_size=False)
    draws = EnergyDistribution(network, (3,), sampler=start).sample(random.key(1), (NUM_DRAWS,))
    white = (np.asarray(draws) - network.base.mean) @ network.base.whitening.T
    assert_independent_draws(white, Moments(np.zeros(3), np.ones(3)))
    products = white[:, [0, 0, 1]] * white[:, [1, 2, 2]]
    assert np.abs(products.mean(0)).max() < 5 / np.sqrt(NUM_DRAWS), "and uncorrelated"
    with pytest.raises(AssertionError, match="off"):
        assert_independent_draws(draws, Moments(np.zeros(3), np.ones(3)))


# -- densities that are not like where the runs start ------------------------------------------


def narrow(**options):
    """N(2, 0.01²), far from a standard normal start, and its exact moments."""
    energy = lambda x: 5000.0 * jnp.sum((x - 2.0) ** 2)  # noqa: E731
    d = EnergyDistribution(energy, (2,), sampler=Langevin(num_steps=600, **options))
    return d, Moments(np.full(2, 2.0), np.full(2, 0.01))


def test_a_density_a_hundred_times_narrower_than_the_start_is_reached():
    d, exact = narrow()
    assert_independent_draws(d.sample(random.key(0), (NUM_DRAWS,)), exact)


def test_untested_steps_are_tuned_as_well_and_biased_as_much_as_their_step_size_says():
    """Every variance grows by 1 / (1 - ε/2), for ε in units of the variance."""
    d, exact = narrow(metropolis=False)

    def tune(key):
        key_start, key = random.split(key)
        start = random.normal(key_start, (2,))
        return tune_step_size(
            key, d.log_prob, start, step_size=0.1, num_steps=300, target_accept_prob=0.95
        )[1]

    step_size = jax.jit(jax.vmap(tune))(random.split(random.key(1), NUM_DRAWS)) / exact.sd[0] ** 2
    biased = exact._replace(sd=exact.sd * np.sqrt(np.mean(1 / (1 - step_size / 2))))
    draws = d.sample(random.key(0), (NUM_DRAWS,))
    assert_independent_draws(draws, biased)
    with pytest.raises(AssertionError, match="sd is"):
        assert_independent_draws(draws, exact)


def test_runs_that_stand_still_draw_nan_and_say_so():
    """With a step as large as the start, all proposals are refused: the start is no draw."""
    d, _ = narrow(adapt_step_size=False)
    with pytest.warns(UserWarning, match=r"8 of 8 Langevin runs stood still .* lower step_size"):
        draws = d.sample(random.key(0), (8,))
    assert np.isnan(draws).all()
    assert np.isnan(jax.jit(lambda d, key: d.sample(key, (8,)))(d, random.key(0))).all()


def test_runs_that_explode_say_so():
    d, _ = narrow(adapt_step_size=False, metropolis=False)
    with pytest.warns(UserWarning, match="8 of 8 Langevin runs .* left the finite numbers"):
        assert not np.isfinite(d.sample(random.key(0), (8,))).any()
