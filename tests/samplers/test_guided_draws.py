"""Draws guided by a measurement: their law against posteriors in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.samplers.guidance import (
    DPS,
    Measurement,
    MomentMatching,
    PiGDM,
    guided_diffusion,
    twisted_diffusion,
)
from numpyro_score.samplers.guidance.twisted import TwistedSteps
from tests.samplers.normal_data import (
    COVARIANCE,
    MATRIX,
    MEAN,
    MEASUREMENT,
    NOISE,
    SDES,
    Y,
    at_time,
    condition,
    normal_score,
)

# -- draws ---------------------------------------------------------------------------------------

NUM, STEPS = 2_000, 100
DISCRETIZATION = 0.03


def check_law(draws, weights, mean, covariance):
    """Ask that weighted draws have a mean and covariance, within 4.5 standard errors."""
    ess = 1 / np.sum(weights**2)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (np.asarray(draws, float) - mean).T)
    assert np.abs(white @ weights).max() < 4.5 / np.sqrt(ess) + DISCRETIZATION
    second = (white * weights) @ white.T - np.eye(len(mean))
    assert np.abs(second).max() < 4.5 * np.sqrt(2 / ess) + DISCRETIZATION


@functools.cache
def draws_of(name, guidance, noise=NOISE, seed=0):
    sde = SDES[name]
    x = sde.prior((3,)).sample(jax.random.key(seed), (NUM,))
    score = normal_score(sde, MEAN, COVARIANCE)
    measurement = Measurement(MEASUREMENT.forward, MEASUREMENT.y, noise)
    return guided_diffusion(
        jax.random.key(seed + 1), score, sde, measurement, x, guidance=guidance, num_steps=STEPS
    )


@pytest.mark.parametrize(
    ("name", "guidance"), [("vp", MomentMatching()), ("ve", MomentMatching(num_iterations=4))]
)
def test_guided_draws_have_the_law_of_the_posterior(name, guidance):
    sde, weights = SDES[name], np.full(NUM, 1 / NUM)
    law = condition(MEAN, COVARIANCE, MATRIX, Y, NOISE)[:2]
    draws = draws_of(name, guidance)
    check_law(draws, weights, *at_time(sde, sde.t_min, *law))
    law = condition(MEAN, COVARIANCE, MATRIX, Y, 0.5 * NOISE)[:2]
    with pytest.raises(AssertionError):
        check_law(draws, weights, *at_time(sde, sde.t_min, *law))


def test_dps_goes_where_the_measurement_says_whatever_its_noise():
    """Its draws fit y up to its last steps, and are no posterior: noise does not enter."""
    sde, step_size = SDES["ve"], 0.5
    draws = np.asarray(draws_of("ve", DPS(step_size)), float)
    ratio = (sde.min_std / sde.max_std) ** (1 / STEPS)
    # Near y it goes to and fro by at most one step's pull, about the noise of that step.
    pull = 2 * step_size * (1 - ratio**2) * np.linalg.norm(MATRIX, 2) ** 2
    residual = np.linalg.norm(draws @ MATRIX.T - Y, axis=1)
    assert residual.mean() < pull + 4 * sde.min_std
    prior = np.linalg.norm(np.linalg.cholesky(MATRIX @ COVARIANCE @ MATRIX.T))
    assert prior > 4 * residual.mean()

    np.testing.assert_array_equal(draws_of("ve", DPS(step_size), noise=2.0), draws)
    mean, covariance, _ = condition(MEAN, COVARIANCE, MATRIX, Y, 2.0)
    assert np.trace(np.cov(MATRIX @ draws.T)) < 0.1 * np.trace(MATRIX @ covariance @ MATRIX.T)
    assert np.linalg.norm(MATRIX @ mean - Y) > 5 * np.linalg.norm(MATRIX @ draws.mean(0) - Y)


def test_twisted_draws_have_the_law_of_the_posterior():
    sde = SDES["ve"]
    x = sde.prior((3,)).sample(jax.random.key(0), (NUM,))
    out = twisted_diffusion(
        jax.random.key(1), normal_score(sde, MEAN, COVARIANCE), sde, MEASUREMENT, x, num_steps=STEPS
    )
    assert out.particles.shape == (NUM, 3)
    assert out.ess.shape == (STEPS,)
    weights = np.exp(np.asarray(out.log_weights, float))
    assert abs(weights.sum() - 1) < 1e-4
    # An exact twist leaves nothing to resample but what the steps are off.
    assert out.ess.min() > 0.5 * NUM
    np.testing.assert_allclose(out.ess[-1], 1 / np.sum(weights**2), rtol=1e-3)
    # Of what the diffusion ends with: data and its last noise.
    law = condition(*at_time(sde, sde.t_min, MEAN, COVARIANCE), MATRIX, Y, NOISE)
    check_law(out.particles, weights, *law[:2])
    # The variance of a mean weight is (NUM / ESS - 1) / NUM.
    error = np.sqrt((NUM / out.ess[-1] - 1) / NUM)
    assert abs(out.log_evidence - law[2]) < 4.5 * error + DISCRETIZATION


# -- two modes, which the measurement hardly tells apart -------------------------------------------

CENTRES, SHARES = np.array([[-2.0, -1.0], [2.0, 1.0]]), np.array([0.3, 0.7])
WITHIN = np.array([[0.5, 0.2], [0.2, 0.3]])
ROW, MODES_Y, MODES_NOISE = np.array([[0.1, 1.0]]), np.array([-0.3]), 1.0
RUNS, PARTICLES = 16, 500


def log_shares(sde, x, t, centres=CENTRES, within=WITHIN):
    """Log densities of the modes at a time, times their shares."""
    scale, std = sde.mean_scale(t), sde.marginal_std(t)
    values, vectors = np.linalg.eigh(within)
    turned = (x - scale * centres) @ vectors
    variances = scale**2 * values + std**2
    return jnp.log(SHARES) - 0.5 * jnp.sum(turned**2 / variances + jnp.log(variances), axis=-1)


def runs_of(sde, energy, measurement, size, guidance, **options):
    """Independent runs, as one program."""
    x = sde.prior((size,)).sample(jax.random.key(10), (RUNS, PARTICLES))

    @jax.jit
    @jax.vmap
    def run(key, x):
        return twisted_diffusion(
            key, energy, sde, measurement, x, guidance=guidance, num_steps=STEPS, **options
        )

    return run(jax.random.split(jax.random.key(11), RUNS), x)


def deviations(estimates, wanted):
    """Errors of the mean over runs, in its standard errors."""
    estimates = np.asarray(estimates, float).reshape(RUNS, -1)
    return np.abs(estimates.mean(0) - wanted) / (estimates.std(0, ddof=1) / np.sqrt(RUNS))


@functools.cache
def modes_run():
    """Deviations of the evidence, the share of the first mode, and the mean."""
    sde = SDES["ve"]
    measurement = Measurement(
        lambda x: jnp.asarray(ROW, float) @ x, jnp.asarray(MODES_Y, float), MODES_NOISE
    )
    out = runs_of(
        sde, lambda x, t: -jax.nn.logsumexp(log_shares(sde, x, t)), measurement, 2, MomentMatching()
    )
    shares = jax.vmap(jax.vmap(lambda x: jax.nn.softmax(log_shares(sde, x, sde.t_min))[0]))
    weights = np.exp(np.asarray(out.log_weights, float))

    laws = [
        condition(*at_time(sde, sde.t_min, centre, WITHIN), ROW, MODES_Y, MODES_NOISE)
        for centre in CENTRES
    ]
    joint = SHARES * np.exp([law[2] for law in laws])
    evidence, share = joint.sum(), joint / joint.sum()
    assert 0.4 < share[0] < 0.5, "the measurement says something, and not much"
    found = [np.exp(out.log_evidence), np.sum(weights * shares(out.particles), axis=1)]
    wanted = [evidence, share[0]]
    for k in range(2):
        found.append(np.sum(weights * np.asarray(out.particles)[..., k], axis=1))
        wanted.append(share @ [law[0][k] for law in laws])
    return np.array([deviations(f, w)[0] for f, w in zip(found, wanted, strict=True)]), out


def test_twisted_draws_have_the_shares_of_the_modes_and_the_evidence():
    off, out = modes_run()
    assert np.all(off < 4), off
    assert np.all(out.ess >= 1)
    assert np.all(out.ess <= PARTICLES * (1 + 1e-5))


def test_weights_without_the_proposal_are_seen(monkeypatch):
    right = TwistedSteps._propose

    def forgetful(*args):
        x, log_ratio = right(*args)
        return x, 0 * log_ratio

    monkeypatch.setattr(TwistedSteps, "_propose", forgetful)
    off, _ = modes_run.__wrapped__()
    assert off[0] > 8, off  # of the evidence
    assert off.max() > 8


@pytest.mark.parametrize("guidance", [DPS(None), PiGDM(1.5)], ids=repr)
def test_twisted_draws_of_a_measurement_that_is_not_linear(guidance):
    """The square of data, which tells no sign; resampled at every step; against quadrature."""
    sde, centres, within = SDES["ve"], np.array([[-1.5], [1.0]]), np.array([[0.16]])
    log_density = functools.partial(log_shares, sde, centres=centres, within=within)
    out = runs_of(
        sde,
        lambda x, t: -jax.nn.logsumexp(log_density(x, t)),
        Measurement(lambda x: x**2, jnp.array([2.0]), 1.0),
        1,
        guidance,
        ess_threshold=1.0,
    )
    grid = np.linspace(-5, 5, 4_001)
    variance = within[0, 0] + float(sde.marginal_std(sde.t_min)) ** 2
    prior = np.exp(-0.5 * (grid - centres) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
    joint = SHARES @ prior * np.exp(-0.5 * (2.0 - grid**2) ** 2) / np.sqrt(2 * np.pi)
    evidence = joint.sum() * (grid[1] - grid[0])
    weights, x = np.exp(np.asarray(out.log_weights, float)), np.asarray(out.particles)[..., 0]
    assert deviations(np.exp(out.log_evidence), evidence) < 4
    for moment in (lambda x: x, lambda x: x**2, lambda x: x > 0):
        wanted = joint @ moment(grid) / joint.sum()
        assert deviations(np.sum(weights * moment(x), axis=1), wanted) < 4
