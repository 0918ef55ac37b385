"""Objectives without a derivative in x: their gradient vanishes at the truth, and only there."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from numpyro_score.distributions import DensityDistribution
from numpyro_score.networks import FlowDensity, from_distribution
from numpyro_score.objectives import (
    ContrastiveDivergence,
    EnergyDiscrepancy,
    MaximumLikelihood,
    NoiseContrastiveEstimation,
    PersistentContrastiveDivergence,
)
from tests.networks.densities import shaken

from .gaussian import (
    DIM,
    FACTOR,
    MEAN,
    NUM_DIRECTIONS,
    STANDARD_ERRORS,
    energy_network,
    rows,
    standard_errors,
)

KEY = jax.random.key(7)
NOISE = dist.MultivariateNormal(jnp.asarray(MEAN + 0.3), scale_tril=jnp.asarray(1.2 * FACTOR))
LOG_Z = np.log(2 * np.pi) * DIM / 2 + np.log(np.diag(FACTOR)).sum()


def gradients(objective, num_rows=20_000, log_normalizer=LOG_Z):
    """Gradients of the losses in the perturbations and in the constant, at the truth."""
    x = rows(jax.random.key(0), num_rows)

    def losses(theta):
        network = energy_network(theta[:NUM_DIRECTIONS], 0.0)
        return objective(lambda x: network(x) + theta[-1], x, KEY)

    at = jnp.zeros(NUM_DIRECTIONS + 1).at[-1].set(log_normalizer)
    return jax.jit(jax.jacfwd(losses))(at)


def assert_stationary(objective, **options):
    errors = standard_errors(gradients(objective, **options)[:, :NUM_DIRECTIONS])
    assert np.all(np.abs(errors) < STANDARD_ERRORS), errors


@pytest.mark.parametrize("num_noise", [1, 4])
def test_nce_is_stationary_at_the_normalized_density(num_noise):
    objective = NoiseContrastiveEstimation(NOISE, num_noise)
    assert_stationary(objective)
    constant = standard_errors(gradients(objective))[-1]
    assert abs(constant) < STANDARD_ERRORS
    # Another constant is another density: the normalizer is learned.
    for wrong in (LOG_Z - 0.3, LOG_Z + 0.3):
        assert abs(standard_errors(gradients(objective, log_normalizer=wrong))[-1]) > 10


def test_ranking_does_not_see_the_constant():
    objective = NoiseContrastiveEstimation(NOISE, 4, ranking=True)
    assert_stationary(objective)
    assert_stationary(objective, log_normalizer=0.0)
    np.testing.assert_allclose(gradients(objective)[:, -1], 0.0, atol=1e-5)


LOG_FOUR = np.log(4.0)


def nce_second(*, log_num_noise=LOG_FOUR, log_density=NOISE.log_prob):
    """Noise-contrastive estimation with four draws, written a second time with room for bugs."""

    def objective(network, batch, key):
        draws = NOISE.sample(key, (4, len(batch)))

        def log_odds(x):
            return -jax.vmap(network)(x) - log_density(x) - log_num_noise

        data = -jax.nn.log_sigmoid(log_odds(batch))
        return data - sum(jax.nn.log_sigmoid(-log_odds(draw)) for draw in draws)

    return objective


def test_nce_with_bugs_is_not_stationary():
    assert_stationary(nce_second())
    for bug in ({"log_num_noise": 0.0}, {"log_density": lambda x: 0.0}):
        errors = standard_errors(gradients(nce_second(**bug)))
        assert np.abs(errors).max() > 10


def test_nce_agrees_with_its_second_writing():
    theta = 0.2 * jnp.ones(NUM_DIRECTIONS)
    x, network = rows(jax.random.key(0)), energy_network(theta, 0.0)
    ours = NoiseContrastiveEstimation(NOISE, 4)(network, x, KEY)
    assert abs(standard_errors(ours - nce_second()(network, x, jax.random.key(8)))) < 5


def test_nce_takes_a_noise_of_the_condition():
    objective = NoiseContrastiveEstimation(lambda c: dist.Normal(c, jnp.ones(2)).to_event(1), 2)
    condition = jnp.array([[0.0, 1.0], [5.0, -5.0]])
    energy = lambda x, c: -dist.Normal(c, jnp.ones(2)).to_event(1).log_prob(x)  # noqa: E731
    losses = objective(energy, condition + 0.1, KEY, condition)
    # Where density and noise are one, an example is told by its number alone.
    expected = -np.log(1 / 3) - 2 * np.log(2 / 3)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def contrastive_potential(precision, scale):
    """-log ∫ exp(-f(y + scale ε)) of a Gaussian energy f, in closed form."""
    covariance = np.linalg.inv(precision) + scale**2 * np.eye(DIM)
    log_det = np.linalg.slogdet(np.eye(DIM) + scale**2 * precision)[1]
    smooth = np.linalg.inv(covariance)
    return lambda y: 0.5 * (y - MEAN) @ smooth @ (y - MEAN) + 0.5 * log_det


def assert_is_the_discrepancy(num_negatives, scale=0.4, stabilizer=0.0):
    precision = 0.7 * np.linalg.inv(FACTOR @ FACTOR.T)
    energy = lambda x: 0.5 * (x - MEAN) @ precision @ (x - MEAN)  # noqa: E731
    x = rows(jax.random.key(0), 4_000)
    objective = EnergyDiscrepancy(scale, num_negatives, stabilizer)
    losses = jax.jit(lambda x: objective(energy, x, KEY))(x)
    y = x + scale * jax.random.normal(jax.random.key(3), x.shape)
    potential = jax.vmap(contrastive_potential(precision, scale))(y)
    expected = jax.vmap(energy)(x) - potential
    assert abs(standard_errors(losses - expected)) < STANDARD_ERRORS


def test_energy_discrepancy_of_a_gaussian():
    assert_is_the_discrepancy(num_negatives=512)


@pytest.mark.parametrize("bug", [{"num_negatives": 4}, {"num_negatives": 16, "stabilizer": 8.0}])
def test_energy_discrepancy_is_told_from_its_estimates(bug):
    with pytest.raises(AssertionError):
        assert_is_the_discrepancy(**bug)


def test_energy_discrepancy_is_stationary_at_the_truth():
    assert_stationary(EnergyDiscrepancy(0.3, 256, stabilizer=0.0), num_rows=4_000)


# -- contrastive divergence ------------------------------------------------------------------------

WRONG = 1.6  # the network's precision is so many times that of the data


def likelihood_gradient():
    """Gradient of the mean negative log-likelihood in the entries of the precision."""
    covariance = FACTOR @ FACTOR.T
    return 0.5 * (covariance - covariance / WRONG)


def cd_gradients(objective, num_rows=4_000):
    x = rows(jax.random.key(0), num_rows)
    precision = jnp.asarray(WRONG * np.linalg.inv(FACTOR @ FACTOR.T))

    def losses(precision):
        return objective(lambda x: 0.5 * (x - MEAN) @ precision @ (x - MEAN), x, KEY)

    return jax.jit(jax.jacfwd(losses))(precision).reshape(num_rows, -1)


def cd_errors(objective):
    return standard_errors(cd_gradients(objective) - likelihood_gradient().ravel())


# MALA and the untested step move by about a tenth of the narrowest direction of the network.
LONG = {"step_size": 0.05, "num_steps": 150}


def test_long_chains_give_the_gradient_of_the_likelihood():
    assert np.all(np.abs(cd_errors(ContrastiveDivergence(**LONG))) < STANDARD_ERRORS)


def test_chains_from_elsewhere_arrive():
    start = dist.Normal(jnp.asarray(MEAN, jnp.float32) + 0.5, 0.5).to_event(1)
    assert np.all(np.abs(cd_errors(ContrastiveDivergence(**LONG, start=start))) < STANDARD_ERRORS)


@pytest.mark.parametrize(
    "bug",
    [
        {"step_size": 0.05, "num_steps": 1},
        {"step_size": 0.15, "num_steps": 50, "metropolis": False},
    ],
    ids=["short", "biased by its step size"],
)
def test_what_is_no_likelihood_is_seen(bug):
    assert np.abs(cd_errors(ContrastiveDivergence(**bug))).max() > STANDARD_ERRORS


def test_no_gradient_goes_through_the_chain():
    x = rows(jax.random.key(0), 8)
    objective = ContrastiveDivergence(0.1, 3)

    def losses(scale):
        return objective(lambda x: scale * jnp.sum(x**2), x, KEY)

    forward = jax.jacfwd(losses)(0.5)
    low, high = (jnp.sum(rows**2, 1) for rows in (x, _ends(objective, x)))
    np.testing.assert_allclose(forward, low - high, rtol=1e-4)


def _ends(objective, x):
    from numpyro_score.objectives._negatives import negatives

    chain_key = jax.random.split(KEY)[1]
    return negatives(objective, lambda x: 0.5 * jnp.sum(x**2), x, chain_key, None)


def test_magnitude_adds_squares():
    x = rows(jax.random.key(0), 8)
    network = energy_network(jnp.zeros(NUM_DIRECTIONS), 0.0)
    plain = ContrastiveDivergence(0.1, 3)(network, x, KEY)
    more = ContrastiveDivergence(0.1, 3, magnitude=0.5)(network, x, KEY)
    low = jax.vmap(network)(x)
    np.testing.assert_allclose(more - plain, 0.5 * (low**2 + (low - plain) ** 2), rtol=1e-3)


def test_persistent_chains_become_those_of_the_network():
    objective = PersistentContrastiveDivergence(0.05, 20, buffer_size=2_000, restart_prob=0.0)
    precision = jnp.asarray(WRONG * np.linalg.inv(FACTOR @ FACTOR.T))
    network = lambda x: 0.5 * (x - MEAN) @ precision @ (x - MEAN)  # noqa: E731
    x = rows(jax.random.key(0), 2_000)
    memory = objective.init_memory(jax.random.key(1), x)
    update = jax.jit(lambda memory, key: objective.update(network, x, key, memory)[1])
    for key in jax.random.split(KEY, 20):
        memory = update(memory, key)
    z = np.linalg.solve(FACTOR / np.sqrt(WRONG), (memory.positions - MEAN).T).T
    assert np.all(np.abs(standard_errors(z)) < STANDARD_ERRORS)
    assert np.all(np.abs(standard_errors(z**2 - 1)) < STANDARD_ERRORS)


def test_a_chain_keeps_its_condition():
    objective = PersistentContrastiveDivergence(0.01, 1, buffer_size=10, restart_prob=0.0)
    data = jnp.arange(40.0).reshape(20, 2)
    condition = jnp.arange(20.0)
    memory = objective.init_memory(KEY, data, condition)
    np.testing.assert_array_equal(memory.positions[:, 0], 2 * memory.condition)
    network = lambda x, c: 10 * jnp.sum((x - jnp.array([2 * c, 2 * c + 1])) ** 2)  # noqa: E731
    losses, after = objective.update(network, data, KEY, memory, condition)
    assert losses.shape == (20,)  # more examples than chains
    np.testing.assert_array_equal(after.condition, memory.condition)
    np.testing.assert_allclose(after.positions[:, 0], 2 * after.condition, atol=1.0)
    assert (after.positions != memory.positions).any()


def test_restarts_are_at_the_data():
    objective = PersistentContrastiveDivergence(1e-12, 1, buffer_size=500, restart_prob=0.5)
    memory = objective.init_memory(KEY, jnp.zeros((3, 1)))
    _, after = objective.update(lambda x: 0.0 * x[0], jnp.ones((500, 1)), KEY, memory)
    restarted = np.round(np.asarray(after.positions)).mean()
    assert abs(restarted - 0.5) < 0.1


# -- maximum likelihood ----------------------------------------------------------------------------


def ml_gradients(noise_scale, blur):
    """Gradients in mean and scales, at the normal of the data blurred by ``blur``."""
    factor = jnp.asarray(np.linalg.cholesky(FACTOR @ FACTOR.T + blur**2 * np.eye(DIM)))

    def build(p):
        return dist.MultivariateNormal(MEAN + p[:DIM], scale_tril=jnp.exp(p[DIM:]) * factor)

    x, objective = rows(jax.random.key(0)), MaximumLikelihood(noise_scale)
    at = jnp.zeros(2 * DIM)
    gradient = jax.jacfwd(lambda p: objective(from_distribution(build, p), x, KEY))
    return np.abs(standard_errors(jax.jit(gradient)(at))).max()


def test_maximum_likelihood_is_stationary_at_the_density_of_the_blurred_data():
    assert ml_gradients(0.0, 0.0) < STANDARD_ERRORS
    assert ml_gradients(0.5, 0.5) < STANDARD_ERRORS
    assert ml_gradients(0.5, 0.0) > 10


def test_nce_is_stationary_with_a_learned_noise():
    network = FlowDensity(DIM, num_layers=2, width=8, depth=1, key=KEY).fit_base(rows(KEY, 500))
    noise = DensityDistribution(shaken(network, 0.2), (DIM,))
    assert_stationary(NoiseContrastiveEstimation(noise), num_rows=5_000)


def test_nce_takes_a_learned_noise_of_the_condition():
    network = from_distribution(lambda p, c: dist.Normal(c, p).to_event(1), jnp.ones(2))
    objective = NoiseContrastiveEstimation(
        lambda c: DensityDistribution(network, (2,), condition=c), 2
    )
    condition = jnp.array([[0.0, 1.0], [5.0, -5.0]])
    losses = objective(network, condition + 0.1, KEY, condition)
    # Where density and noise are one, an example is told by its number alone.
    np.testing.assert_allclose(losses, -np.log(1 / 3) - 2 * np.log(2 / 3), rtol=1e-5)
