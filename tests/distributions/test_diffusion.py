"""Diffusion models as distributions: normalized, drawn from, with the score as their gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, Predictive, log_likelihood
from scipy import stats

from numpyro_score.distributions import DiffusionDistribution
from numpyro_score.infer import MALA, check_model
from numpyro_score.networks import NoiseScoreMLP
from numpyro_score.samplers import flow_log_density
from numpyro_score.sde import VE, VP, InTime

STD = 0.5
SDES = {"ve": VE(0.01, 500.0), "vp": VP()}


def centres(dim):
    return jnp.asarray(np.random.default_rng(dim).normal(size=(3, dim)), float)


def mixture(sde, dim, weights=(0.2, 0.5, 0.3)):
    """Log density of three noised normals at (x, t)."""

    def log_prob(x, t):
        scale, std = sde.mean_scale(t), sde.marginal_std(t)
        variance = (scale * STD) ** 2 + std**2
        distances = jnp.sum((x - scale * centres(dim)) ** 2, 1) / variance
        log_norm = 0.5 * dim * jnp.log(2 * jnp.pi * variance)
        return jax.nn.logsumexp(jnp.log(jnp.array(weights)) - 0.5 * distances) - log_norm

    return log_prob


def gaussian(sde, dim):
    """The second of them alone."""
    return mixture(sde, dim, (0.0, 1.0, 0.0))


def points(dim, which=(0, 1, 2)):
    noise = jax.random.normal(jax.random.key(0), (6, dim))
    return centres(dim)[jnp.resize(jnp.array(which), 6)] + STD * noise


def errors(distribution, log_prob, x):
    t = jnp.asarray(distribution.sde.t_min, float)
    return jnp.abs(distribution.log_prob(x) - jax.vmap(lambda x: log_prob(x, t))(x))


# -- the density -------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 8, 64])
@pytest.mark.parametrize(("density", "which"), [(gaussian, (1,)), (mixture, (0, 1, 2))])
def test_log_prob_is_that_of_the_data(density, which, dim):
    sde = VE(0.01, 500.0)
    log_prob = density(sde, dim)
    d = DiffusionDistribution(jax.grad(log_prob), sde, (dim,))
    assert errors(d, log_prob, points(dim, which)).max() < 1e-3


def test_a_trace_of_a_part_or_an_ignored_mean_is_seen(monkeypatch):
    sde = VE(0.01, 20.0)

    def error():
        log_prob = mixture(sde, 8)  # another function, so that nothing is compiled yet
        return errors(DiffusionDistribution(jax.grad(log_prob), sde, (8,)), log_prob, points(8))

    right = error().max()
    with monkeypatch.context() as planted:
        planted.setattr(jnp, "trace", lambda matrix: matrix[0, 0])
        assert error().max() > 5 * right
    elsewhere = lambda score, sde, shape: jnp.full(shape, 3.0)  # noqa: E731
    monkeypatch.setitem(flow_log_density.__globals__, "expect_data", elsewhere)
    assert error().max() > 5 * right


def test_it_integrates_to_one():
    sde = VP()
    d = DiffusionDistribution(jax.grad(mixture(sde, 2)), sde, (2,))
    grid = np.linspace(-5, 5, 81)
    x = jnp.stack(jnp.meshgrid(grid, grid), -1)
    mass = np.exp(d.log_prob(x)).sum() * (grid[1] - grid[0]) ** 2
    assert abs(mass - 1) < 0.005


def test_one_probe_is_unbiased_over_probes(monkeypatch):
    # Along a diagonal Jacobian any signs give the trace itself: these data are correlated.
    sde, x = VE(0.1, 500.0), points(2)[0]
    covariance = jnp.array([[1.0, 0.9], [0.9, 1.0]])

    def score(x, t):
        return -jnp.linalg.solve(covariance + sde.marginal_std(t) ** 2 * jnp.eye(2), x)

    def log_prob(signs):
        monkeypatch.setattr(jax.random, "rademacher", lambda key, shape, dtype: jnp.array(signs))
        return float(flow_log_density(score, sde, x, divergence="hutchinson"))

    found = [log_prob((1.0, 1.0)), log_prob((1.0, -1.0))]  # all there are, up to a sign
    blurred = covariance + 0.1**2 * jnp.eye(2)
    exact = dist.MultivariateNormal(jnp.zeros(2), blurred).log_prob(x)
    assert abs(found[0] - exact) > 0.1
    np.testing.assert_allclose(np.mean(found), exact, atol=1e-3)


def test_the_gradient_is_the_score_in_both_modes():
    sde = VP()
    d = DiffusionDistribution(jax.grad(mixture(sde, 2)), sde, (2,))
    x = points(2)[0]
    expected = d.score(x)
    np.testing.assert_allclose(jax.grad(d.log_prob)(x), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jacfwd(d.log_prob)(x), expected, rtol=1e-5)
    # And the score is the slope of the density itself.
    h = 1e-2 * jnp.eye(2)
    slope = (d.log_prob(x + h) - d.log_prob(x - h)) / 2e-2
    np.testing.assert_allclose(slope, expected, rtol=2e-2, atol=2e-2)


def test_the_derivative_in_a_condition_is_that_of_the_density():
    sde = VP()

    def log_prob(c):
        score = lambda x, t, c: sde.mean_scale(t) * c - x  # noqa: E731
        return DiffusionDistribution(score, sde, (2,), condition=c).log_prob(jnp.ones(2))

    c = jnp.array([0.3, -0.5])
    expected = 1.0 - c  # of N(c, I)
    np.testing.assert_allclose(jax.grad(log_prob)(c), expected, atol=2e-2)
    np.testing.assert_allclose(jax.jacfwd(log_prob)(c), expected, atol=2e-2)


# -- draws -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SDES)
def test_draws_are_those_of_the_data(name):
    sde = SDES[name]
    d = DiffusionDistribution(jax.grad(mixture(sde, 1)), sde, (1,), num_steps=200)
    draws = np.asarray(d.sample(jax.random.key(0), (1_000,)))[:, 0]
    cdf = sum(
        w * stats.norm.cdf(draws, float(c), STD)
        for w, c in zip((0.2, 0.5, 0.3), centres(1)[:, 0], strict=True)
    )
    assert stats.kstest(cdf, "uniform").pvalue > 1e-3


def test_a_marginal_is_the_noised_data():
    sde = VP()
    log_prob = mixture(sde, 2)
    d = DiffusionDistribution(jax.grad(log_prob), sde, (2,)).marginal(0.3)
    assert errors(d, log_prob, points(2)).max() < 2e-3
    draws = d.sample(jax.random.key(0), (500,))
    mean = float(sde.mean_scale(0.3)) * (jnp.array([0.2, 0.5, 0.3]) @ centres(2))
    assert jnp.abs(draws.mean(0) - mean).max() < 0.15
    with pytest.raises(ValueError, match="the time must be at least"):
        d.marginal(0.1)


# -- in a model --------------------------------------------------------------------------------


def test_a_prior_and_a_likelihood_of_a_model():
    sde = VP()
    prior = DiffusionDistribution(lambda x, t: -x, sde, (2,))  # N(0, I)

    def model(y):
        theta = numpyro.sample("theta", prior)
        score = lambda x, t, c: sde.mean_scale(t) * c - x  # noqa: E731
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", DiffusionDistribution(score, sde, (2,), condition=theta), obs=y)

    y = jnp.array([[1.0, 0.0], [2.0, 1.0], [0.5, -1.0]])
    check_model(model, y)  # its normalizer is there
    mcmc = MCMC(
        MALA(model), num_warmup=100, num_samples=200, num_chains=8,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(0), y)
    draws = mcmc.get_samples()["theta"]
    np.testing.assert_allclose(draws.mean(0), y.sum(0) / 4, atol=0.12)  # of N(Σy/4, 1/4)
    np.testing.assert_allclose(draws.std(0), 0.5, atol=0.1)
    found = log_likelihood(model, {"theta": draws[:5]}, y)["y"]
    expected = dist.Normal(draws[:5, None], 1.0).to_event(1).log_prob(y)
    np.testing.assert_allclose(found, expected, atol=1e-2)
    simulated = Predictive(model, {"theta": draws[:5]})(jax.random.key(1), y)["y"]
    assert simulated.shape == (5, 3, 2)


def test_a_network_brings_its_scale():
    network = NoiseScoreMLP(2, width=8, key=jax.random.key(0))
    network = network.fit_base(100 * np.random.default_rng(0).normal(size=(50, 2)))
    sde = VE(0.1, 5_000.0)
    d = DiffusionDistribution(InTime(network, sde), sde, (2,))
    np.testing.assert_allclose(d.data_scale, network.base.data_scale)
    exact = network.base.at(0.1)
    expected = -exact.energy(jnp.ones(2)) - exact.log_normalizer
    np.testing.assert_allclose(d.log_prob(jnp.ones(2)), expected, atol=2e-3)


# -- what is refused ---------------------------------------------------------------------------


def test_bad_arguments_are_refused():
    score = lambda x, t: -x  # noqa: E731
    for arguments, error, words in [
        ((score, "VP", (2,)), TypeError, "sde must be a diffusion"),
        ((score, VP(), ()), ValueError, "at least one axis"),
        ((lambda x, t: x[:1], VP(), (2,)), ValueError, "a network must return"),
    ]:
        with pytest.raises(error, match=words):
            DiffusionDistribution(*arguments)
    for options in ({"num_steps": 0}, {"divergence": "none"}, {"data_scale": -1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            DiffusionDistribution(score, VP(), (2,), **options)
    with pytest.raises(ValueError, match="normalized by construction"):
        DiffusionDistribution(score, VP(), (2,)).with_log_normalizer(1.0)


def test_a_scale_for_each_entry_is_refused():
    score = lambda x, t: -x  # noqa: E731
    message = r"must be one number.*float\(rows\.std\(\)\).* of shape \(\d,\)"
    for scales in (jnp.ones(2), np.ones(1), [1.0, 2.0]):
        with pytest.raises(ValueError, match=message):
            DiffusionDistribution(score, VP(), (2,), data_scale=scales)
        with pytest.raises(ValueError, match=message):
            flow_log_density(score, VP(), jnp.zeros(2), data_scale=scales)
    for scale in (2.0, 2, np.float32(2.0), jnp.array(2.0)):
        found = DiffusionDistribution(score, VP(), (2,), data_scale=scale).log_prob(jnp.zeros(2))
        np.testing.assert_allclose(found, -np.log(2 * np.pi), atol=1e-3)


def test_lost_draws_are_told():
    d = DiffusionDistribution(lambda x, t: jnp.where(x > 0, jnp.nan, -x), VP(), (1,))
    with pytest.raises(FloatingPointError, match=r"of the draws are not finite: .* t = "):
        d.sample(jax.random.key(0), (20,))


def test_the_repr_says_how_the_trace_is_taken():
    score = lambda x, t: -x  # noqa: E731
    assert "VP, exact trace" in repr(DiffusionDistribution(score, VP(), (64,)))
    assert "one fixed probe" in repr(DiffusionDistribution(score, VP(), (65,)))
