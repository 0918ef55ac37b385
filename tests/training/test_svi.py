"""Unnormalized sites learned by SVI, with an objective in place of their likelihood."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.module import eqx_module
from numpyro.distributions import constraints
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

from numpyro_score.distributions import EnergyDistribution, Product
from numpyro_score.networks import EnergyMLP
from numpyro_score.objectives import (
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    NoiseContrastiveEstimation,
    PersistentContrastiveDivergence,
)
from numpyro_score.training import ScoreMatchingLoss

KEY = jax.random.key(0)
PRECISION = np.array([[2.0, 0.7, 0.0], [0.7, 1.0, -0.3], [0.0, -0.3, 0.8]])
DATA = dist.MultivariateNormal(jnp.zeros(3), precision_matrix=jnp.asarray(PRECISION)).sample(
    KEY, (4_000,)
)
EXACT = np.linalg.inv(np.cov(DATA.T, bias=True) + np.outer(DATA.mean(0), DATA.mean(0)))


def quadratic(A, x):
    return 0.5 * x @ A @ x


def graphical(data, subsample_size=None):
    A = numpyro.param("A", jnp.eye(3))
    with numpyro.plate("rows", len(data), subsample_size=subsample_size):
        batch = numpyro.subsample(data, event_dim=1)
        numpyro.sample("x", EnergyDistribution((quadratic, (A + A.T) / 2), (3,)), obs=batch)


def no_guide(*args, **kwargs):
    pass


def learn(model, objective, num_steps, *args, guide=no_guide, rate=0.02, **kwargs):
    svi = SVI(model, guide, numpyro.optim.Adam(rate), ScoreMatchingLoss(objective))
    return svi.run(KEY, num_steps, *args, progress_bar=False, **kwargs)


def test_the_precision_of_a_graphical_model():
    result = learn(graphical, ExplicitScoreMatching(), 600, DATA)
    A = (result.params["A"] + result.params["A"].T) / 2
    np.testing.assert_allclose(A, EXACT, atol=0.02)


def test_the_loss_is_that_of_the_objective_scaled_to_all_rows():
    objective = ExplicitScoreMatching()
    params = {"A": jnp.asarray(PRECISION)}
    loss = ScoreMatchingLoss(objective)
    network = lambda x: quadratic(jnp.asarray(PRECISION), x)  # noqa: E731
    whole = loss.loss(KEY, params, graphical, no_guide, DATA)
    np.testing.assert_allclose(whole, objective(network, DATA, KEY).sum(), rtol=1e-4)
    keys = jax.random.split(KEY, 2_000)
    part = jax.jit(jax.vmap(lambda k: loss.loss(k, params, graphical, no_guide, DATA, 40)))(keys)
    assert abs(part.mean() - whole) < 5 * part.std() / np.sqrt(len(part))
    assert part.std() > 0


def test_a_network_under_a_plate_that_subsamples():
    module = EnergyMLP(3, width=16, depth=1, key=KEY).fit_base(2.0 * DATA, 0.5)

    def model(data):
        network = eqx_module("network", module)
        with numpyro.plate("rows", len(data), subsample_size=100):
            batch = numpyro.subsample(data, event_dim=1)
            numpyro.sample("x", EnergyDistribution(network, (3,)), obs=batch)

    result = learn(model, DenoisingScoreMatching(0.5), 400, DATA, rate=3e-3)
    assert result.losses[-50:].mean() < result.losses[:50].mean()
    assert jnp.isfinite(result.losses).all()


def test_the_energy_of_a_product_is_learned_as_a_whole():
    def model(data):
        a = numpyro.param("a", 0.0)
        learned = EnergyDistribution((lambda a, x: 0.5 * a * jnp.sum(x**2), a), (3,))
        prior = dist.Normal(jnp.zeros(3), 2.0).to_event(1)
        with numpyro.plate("rows", len(data)):
            numpyro.sample("x", Product([learned, prior]), obs=data)

    result = learn(model, ExplicitScoreMatching(), 300, DATA, rate=0.05)
    # The precision of one normal for all entries.
    np.testing.assert_allclose(result.params["a"] + 0.25, 1 / jnp.mean(DATA**2), atol=0.01)


def test_conditions_of_the_rows():
    c = jax.random.normal(KEY, (4_000, 1))
    x = 1.5 * c + jax.random.normal(jax.random.key(1), c.shape)

    def model(x, c):
        slope = numpyro.param("slope", 0.0)
        energy = (lambda s, x, c: 0.5 * jnp.sum((x - s * c) ** 2), slope)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", EnergyDistribution(energy, (1,), condition=c), obs=x)

    result = learn(model, ExplicitScoreMatching(), 400, x, c)
    expected = float(jnp.sum(x * c) / jnp.sum(c**2))
    assert abs(result.params["slope"] - expected) < 0.01


def test_normalized_sites_keep_their_likelihood():
    """Two models in one: each parameter is what it is alone."""
    y = 3.0 + 2.0 * jax.random.normal(KEY, (500,))

    def both(data, y):
        graphical(data)
        loc = numpyro.param("loc", 0.0)
        scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
        with numpyro.plate("y_rows", len(y)):
            numpyro.sample("y", dist.Normal(loc, scale), obs=y)

    result = learn(both, ExplicitScoreMatching(), 1_000, DATA, y)
    A = (result.params["A"] + result.params["A"].T) / 2
    np.testing.assert_allclose(A, EXACT, atol=0.02)
    np.testing.assert_allclose(result.params["loc"], y.mean(), atol=0.02)
    np.testing.assert_allclose(result.params["scale"], y.std(), atol=0.02)


def test_latent_sites_keep_their_guide():
    """The part of the loss that is no objective is Trace_ELBO's."""
    y = jnp.array([1.0, 2.0, 4.0])

    def of_y(y):
        loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal(loc, 1.0).expand([3]).to_event(1), obs=y)

    def both(data, y):
        graphical(data)
        of_y(y)

    guide = AutoNormal(of_y)
    svi = SVI(of_y, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
    params = svi.get_params(svi.init(KEY, y))
    both_guide = lambda data, y: guide(y)  # noqa: E731
    A = {"A": jnp.asarray(PRECISION)}
    objective = ExplicitScoreMatching()
    keys = jax.random.split(KEY, 4_000)
    elbo = jax.vmap(lambda k: Trace_ELBO().loss(k, params, of_y, guide, y))(keys)
    loss = ScoreMatchingLoss(objective)
    mixed = jax.vmap(lambda k: loss.loss(k, params | A, both, both_guide, DATA[:50], y))(keys)
    alone = ScoreMatchingLoss(objective).loss(KEY, A, graphical, no_guide, DATA[:50])
    error = jnp.sqrt((elbo.var() + mixed.var()) / len(keys))
    assert abs(mixed.mean() - elbo.mean() - alone) < 5 * error
    particles = ScoreMatchingLoss(objective, num_particles=500)
    many = particles.loss(KEY, params | A, both, both_guide, DATA[:50], y)
    assert abs(many - mixed.mean()) < 5 * mixed.std() / np.sqrt(500)


def masked(data):
    with numpyro.handlers.mask(mask=False):
        graphical(data)


def latent(data):
    numpyro.sample("x", EnergyDistribution(lambda x: jnp.sum(x**2), (3,)))


def bounded(data):
    energy = EnergyDistribution(jnp.sum, (3,), support=constraints.positive)
    numpyro.sample("x", energy, obs=jnp.abs(data[0]))


def batched(data):
    means = dist.Normal(jnp.zeros((len(data), 3)), 1.0).to_event(1)
    energy = EnergyDistribution(lambda x: jnp.sum(x**2), (3,))
    numpyro.sample("x", Product([energy, means]), obs=data)


def normalized(data):
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=data[0, 0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (masked, "inside a MaskedDistribution, which an objective cannot look into"),
        (latent, "Site 'x' is unnormalized and latent"),
        (bounded, "at whose border an objective is biased"),
        (batched, r"Site 'x' is a Product with the batch_shape \(4000,\)"),
        (normalized, "found no unnormalized site"),
    ],
)
def test_refusals(model, message):
    guide = lambda data: numpyro.sample("x", dist.Normal(jnp.zeros(3)).to_event(1))  # noqa: E731
    with pytest.raises(ValueError, match=message):
        ScoreMatchingLoss(ExplicitScoreMatching()).loss(
            KEY, {"A": jnp.eye(3)}, model, guide if model is latent else no_guide, DATA
        )


def test_what_is_no_objective():
    with pytest.raises(TypeError, match=r"one of numpyro_score\.objectives"):
        ScoreMatchingLoss("dsm")
    with pytest.raises(ValueError, match="has a memory, which SVI does not hand from step to"):
        ScoreMatchingLoss(PersistentContrastiveDivergence(0.1))


def test_noise_contrastive_estimation_learns_the_normalizer():
    noise = dist.MultivariateNormal(jnp.zeros(3), 1.3 * jnp.linalg.inv(jnp.asarray(PRECISION)))

    class Normalized(eqx.Module):
        c: jax.Array

        def __call__(self, x):
            return quadratic(jnp.asarray(PRECISION), x) + self.c

    def model(data):
        network = Normalized(numpyro.param("c", 0.0))
        with numpyro.plate("rows", len(data)):
            numpyro.sample("x", EnergyDistribution(network, (3,)), obs=data)

    result = learn(model, NoiseContrastiveEstimation(noise, 5), 400, DATA, rate=0.05)
    log_z = 1.5 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(PRECISION)[1]
    assert abs(result.params["c"] - log_z) < 0.05
