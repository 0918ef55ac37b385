import copy

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive

from numpyro_score.distributions import DiffusionDistribution, EnergyDistribution
from numpyro_score.infer import AnnealedLangevin, ModelError, TemperedSMC
from numpyro_score.infer._levels import POSTERIOR as POSTERIOR_LEVEL
from numpyro_score.infer._particle_moves import Moves
from numpyro_score.infer._particle_target import ParticleTarget, particle_target
from numpyro_score.infer._paths import LocalPath
from numpyro_score.sde import VE
from tests.mixtures import Mixture, ncsn_toy

SDE = VE(0.02, 15.0)
TOY = ncsn_toy()
MATRIX, Y, NOISE = jnp.array([[1.0, 1.0]]), jnp.array([-4.0]), 6.0
POSTERIOR, LOG_EVIDENCE = TOY.posterior(np.asarray(MATRIX), np.asarray(Y), NOISE)


def run(sampler, *args, seed=0):
    sampler.run(jax.random.key(seed), *args)
    return sampler


@pytest.fixture(scope="module")
def smc():
    model = TOY.model(SDE, "score")
    return run(TemperedSMC(model, 1_000, num_chains=8, progress_bar=False), MATRIX, Y, NOISE)


# -- tempered SMC ------------------------------------------------------------------------------


def weights_of_runs(sampler):
    x = np.asarray(sampler.get_samples(group_by_chain=True)["x"])
    return (TOY.nearest(x) == 1).mean(1)


def off_by(weights, exact):
    return (weights.mean() - exact) / (weights.std(ddof=1) / np.sqrt(len(weights)))


def test_weights_of_modes_and_evidence(smc):
    weights = weights_of_runs(smc)
    assert weights.std(ddof=1) < 0.05
    assert abs(off_by(weights, POSTERIOR.weights[1])) < 4.5  # of 8 runs: 2 in 1,000
    assert smc.log_evidence_error < 0.05
    assert abs(smc.log_evidence - LOG_EVIDENCE) < 4.5 * smc.log_evidence_error
    # A prior weight of 0.8 is another answer.
    assert abs(POSTERIOR.weights[1] - 0.8) > 0.1


def test_draws_within_a_mode(smc):
    x = np.asarray(smc.get_samples()["x"])
    for k in range(2):
        inside = x[TOY.nearest(x) == k]
        errors = np.sqrt(np.diag(POSTERIOR.covariances[k]) / 200)  # of 8,000 with common ancestors
        assert np.all(np.abs(inside.mean(0) - POSTERIOR.means[k]) < 4 * errors)
        np.testing.assert_allclose(
            np.cov(inside.T), POSTERIOR.covariances[k], atol=4 * np.sqrt(2 / 200)
        )


def test_stages_are_reported(smc):
    stages = smc.stages
    chains, num_stages = stages.ess.shape
    assert chains == 8
    assert np.all(np.diff(stages.inverse_temperature) >= 0)
    np.testing.assert_allclose(stages.inverse_temperature[:, -1], 1.0, atol=1e-6)
    np.testing.assert_allclose(stages.ess[:, -1], 1_000, rtol=1e-3)
    assert np.all(np.abs(stages.accept_prob - 0.574) < 0.1)
    assert stages.log_evidence.shape == (8, num_stages)


@pytest.mark.filterwarnings("ignore:The score of site")  # which tells the second one as well
@pytest.mark.parametrize("bug", ["sign of the likelihood", "twice the prior"])
def test_catches_a_wrong_target(bug, monkeypatch):
    right_prior, right_likelihood = ParticleTarget.log_prior, ParticleTarget.log_likelihood
    if bug == "twice the prior":
        # Moves to a narrower prior: weights stay, the spread within a mode does not.
        monkeypatch.setattr(
            ParticleTarget, "log_prior", lambda self, z, level: 2 * right_prior(self, z, level)
        )
    else:
        monkeypatch.setattr(
            ParticleTarget, "log_likelihood", lambda self, z: -right_likelihood(self, z)
        )
    smc = TemperedSMC(TOY.model(SDE), 500, num_chains=2, progress_bar=False)
    run(smc, MATRIX, Y, NOISE)
    x = np.asarray(smc.get_samples()["x"])
    spread = x[TOY.nearest(x) == 1].std(0)
    exact = np.sqrt(np.diag(POSTERIOR.covariances[1]))
    assert abs(smc.log_evidence - LOG_EVIDENCE) > 1 or np.all(spread < 0.85 * exact)


def test_arviz_and_predictive_take_it_as_an_mcmc(smc):
    data = az.from_numpyro(smc)
    posterior = data["posterior"]
    assert posterior["x"].shape == (8, 1_000, 2)
    assert float(az.rhat(posterior)["x"].max()) < 1.2
    predictive = Predictive(smc.sampler.model, smc.get_samples())
    assert predictive(jax.random.key(0), MATRIX, None, NOISE)["y"].shape == (8_000, 1)


def test_constrained_latents_deterministic_sites_and_plates():
    def model(counts):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        numpyro.deterministic("double", 2 * rate)
        with numpyro.plate("rows", 20):
            numpyro.sample("k", dist.Poisson(rate), obs=counts)

    counts = jnp.arange(20) % 5
    smc = run(TemperedSMC(model, 2_000, progress_bar=False), counts)
    draws = smc.get_samples()
    shape, rate = 2 + counts.sum(), 1 + 20
    # Of 8,000 particles a tenth at least are worth a draw each.
    error = np.sqrt(shape) / rate / np.sqrt(800)
    assert abs(draws["rate"].mean() - shape / rate) < 4 * error
    np.testing.assert_allclose(draws["double"], 2 * draws["rate"], rtol=1e-6)
    lgamma = jax.scipy.special.gammaln
    log_evidence = lgamma(shape) - lgamma(2.0) - shape * jnp.log(rate) - lgamma(counts + 1.0).sum()
    assert abs(smc.log_evidence - log_evidence) < 0.1


def test_tuning_follows_the_acceptance():
    """A Gaussian of 50 dimensions with scales from 0.1 to 10."""
    scales = jnp.logspace(-1, 1, 50)
    z = scales * jax.random.normal(jax.random.key(0), (2_000, 50))
    log_density = lambda z: -0.5 * jnp.sum((z / scales) ** 2)  # noqa: E731
    moves = Moves(LocalPath(3))
    weights = jnp.full(2_000, 1 / 2_000)
    tuning = moves.tune(jax.random.key(1), z, weights, log_density, jnp.array(5.0))
    np.testing.assert_allclose(tuning.scale, scales, rtol=0.1)

    def accept_prob(key, z):
        return moves.step(key, moves.init(z, log_density), log_density, *tuning[:2])[
            1
        ].acceptance_rate

    mean = jax.vmap(accept_prob)(jax.random.split(jax.random.key(2), 2_000), z).mean()
    assert abs(mean - 0.574) < 0.05


# -- annealed Langevin -------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["energy", "score"])
def test_annealed_langevin_finds_both_modes_and_is_right_in_one(network):
    sampler = AnnealedLangevin(TOY.model(SDE, network), 500, num_chains=2, progress_bar=False)
    run(sampler, MATRIX, Y, NOISE)
    x = np.asarray(sampler.get_samples()["x"])
    for k in range(2):
        inside = x[TOY.nearest(x) == k]
        assert len(inside) > 50
        error = np.sqrt(np.diag(POSTERIOR.covariances[k]) / len(inside))
        assert np.all(np.abs(inside.mean(0) - POSTERIOR.means[k]) < 5 * error)
    assert "weights of modes" in repr(sampler)


def test_annealed_langevin_of_one_gaussian_is_exact():
    gaussian = Mixture(np.ones(1), np.array([[1.0, -1.0]]), np.array([[[1.0, 0.8], [0.8, 2.0]]]))
    exact, _ = gaussian.posterior(np.asarray(MATRIX), np.asarray(Y), 0.5)
    sampler = AnnealedLangevin(gaussian.model(SDE, "score"), 1_000, progress_bar=False)
    x = np.asarray(run(sampler, MATRIX, Y, 0.5).get_samples()["x"])
    error = np.sqrt(np.diag(exact.covariances[0]) / len(x))
    assert np.all(np.abs(x.mean(0) - exact.means[0]) < 5 * error)
    np.testing.assert_allclose(np.cov(x.T), exact.covariances[0], atol=5 * np.sqrt(2 / len(x)) * 2)


# -- what is told ------------------------------------------------------------------------------


def test_models_that_cannot_be_sampled():
    def no_sampler():
        numpyro.sample("x", EnergyDistribution(lambda x: x @ x, (2,)))

    def no_diffusion():
        numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).to_event(1))

    def discrete():
        numpyro.sample("k", dist.Bernoulli(0.5))

    with pytest.raises(ModelError, match="cannot be drawn from"):
        run(TemperedSMC(no_sampler, 10))
    with pytest.raises(ValueError, match="needs a latent site with a DiffusionDistribution"):
        run(AnnealedLangevin(no_diffusion, 10))
    with pytest.raises(ModelError, match="discrete"):
        run(TemperedSMC(discrete, 10))


def test_likelihoods_of_zero_and_of_nan():
    def model(y, factor):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Uniform(x, x + 1), obs=y)
        numpyro.factor("factor", factor)

    smc = TemperedSMC(model, 500, num_chains=2, progress_bar=False)
    x = run(smc, jnp.array(0.5), 0.0).get_samples()["x"]
    assert bool(((x > -0.5) & (x < 0.5)).all())  # what the prior gave and data forbid is gone
    exact = dist.Normal(0.0, 1.0).cdf(0.5) - dist.Normal(0.0, 1.0).cdf(-0.5)
    assert abs(smc.log_evidence - jnp.log(exact)) < 0.2
    with pytest.raises(FloatingPointError, match="every draw from the prior is 0"):
        run(smc, jnp.array(100.0), 0.0)
    with pytest.raises(FloatingPointError, match="NaN"):
        run(smc, jnp.array(0.5), jnp.nan)


@pytest.mark.parametrize("sampler", [TemperedSMC, AnnealedLangevin])
def test_scores_that_are_nan_far_from_the_data(sampler):
    score = TOY.score(SDE)

    def model(reach):
        def lost(x, t):
            return jnp.where(jnp.abs(x).max() > reach, jnp.nan, score(x, t))

        numpyro.sample("x", DiffusionDistribution(lost, SDE, (2,), num_steps=10))

    with pytest.raises(FloatingPointError, match=r"% of the draws from the prior of 'x'.* t = "):
        run(sampler(model, 200, num_chains=1, progress_bar=False), 10.0)


def test_particles_that_cannot_move_are_told():
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        # A likelihood that is finite everywhere, with a gradient that is not.
        numpyro.factor("f", jnp.where(x > 0, 0.0, jnp.sqrt(jnp.abs(jnp.minimum(x, 0.0)) * 0.0)))

    with pytest.raises(FloatingPointError, match=r"At λ = 0, .*% of the particles"):
        run(TemperedSMC(model, 200, num_chains=1, progress_bar=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 1}, "num_particles"),
        ({"num_chains": 0}, "num_chains"),
        ({"num_moves": 0}, "num_moves"),
        ({"path_nodes": 1}, "path_nodes"),
        ({"target_ess": 1.0}, "target_ess"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        TemperedSMC(lambda: None, **options)


def test_before_a_run_and_without_a_model():
    with pytest.raises(RuntimeError, match="run must be called first"):
        TemperedSMC(lambda: None).get_samples()
    with pytest.raises(TypeError, match="needs a NumPyro model"):
        AnnealedLangevin(3.0)


def test_summary_has_the_evidence(smc, capsys):
    smc.print_summary()
    assert "Log evidence" in capsys.readouterr().out


def test_evidence_of_several_runs_and_of_one(smc):
    logs = np.asarray(smc.stages.log_evidence).sum(1)
    np.testing.assert_allclose(np.exp(smc.log_evidence), np.exp(logs).mean(), rtol=1e-5)
    relative = np.exp(logs).std(ddof=1) / np.exp(logs).mean() / np.sqrt(8)
    np.testing.assert_allclose(smc.log_evidence_error, relative, rtol=1e-4)
    one = copy.copy(smc)
    one._stages = type(smc.stages)(*(field[:1] for field in smc.stages))
    assert np.isnan(one.log_evidence_error)


def test_target_splits_the_density_of_the_model():
    """Prior and likelihood together are NumPyro's potential energy, Jacobians included."""

    def model(y):
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        x = numpyro.sample("x", DiffusionDistribution(TOY.energy(SDE), SDE, (2,)))
        numpyro.factor("soft", -0.1 * jnp.sum(x**2))
        numpyro.sample("y", dist.Normal(x.sum(), scale), obs=y)

    target = particle_target(model, (1.5,), {})
    z = {"scale": jnp.array(0.3), "x": jnp.array([1.0, -2.0])}
    values = target.constrain(z)
    scale, x = values["scale"], values["x"]
    prior = dist.HalfNormal(2.0).log_prob(scale) + z["scale"]
    prior -= TOY.energy(SDE)(x, SDE.t_min)
    likelihood = -0.1 * jnp.sum(x**2) + dist.Normal(x.sum(), scale).log_prob(1.5)
    np.testing.assert_allclose(target.log_prior(z, POSTERIOR_LEVEL), prior, rtol=1e-5)
    np.testing.assert_allclose(target.log_likelihood(z), likelihood, rtol=1e-5)
