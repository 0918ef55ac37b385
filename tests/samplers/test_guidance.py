"""Guidance by a measurement: against posteriors in closed form, and what is refused.

With normal data and a linear measurement all is known: the posterior, its score at every noise, and
how likely the measurement is. A skewed covariance and a matrix without symmetry show a sign, a
transposed Jacobian or a missing variance; each is planted to see that it would be found.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.samplers.guidance import (
    DPS,
    Guidance,
    Measurement,
    MomentMatching,
    PiGDM,
    guided_diffusion,
    guided_score,
    twisted_diffusion,
)
from numpyro_score.samplers.guidance.base import linearize
from numpyro_score.sde import VE, VP, convert
from tests.samplers.normal_data import (
    COVARIANCE,
    EVERY,
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

# -- the likelihood of one particle --------------------------------------------------------------


def particles_on_their_way(sde, mean, covariance):
    """Three draws at each of four times."""
    rng, times = np.random.default_rng(0), np.linspace(0.05, 0.8, 4)
    laws = [at_time(sde, t, mean, covariance) for t in times for _ in range(3)]
    x = [rng.multivariate_normal(*law) for law in laws]
    return jnp.asarray(np.stack(x), float), jnp.asarray(np.repeat(times, 3), float)


def errors(guidance, sde, mean=MEAN, covariance=COVARIANCE):
    """The largest of the expected data given y and the particle, and of the log likelihood."""
    score = normal_score(sde, mean, covariance)
    x, times = particles_on_their_way(sde, mean, covariance)

    @jax.jit
    @jax.vmap
    def found(x, t):
        posterior = guided_score(score, sde, MEASUREMENT, (3,), guidance=guidance)(x, t)
        denoised = convert(posterior, x, t, sde, source="score", target="denoised")
        likelihood = guidance.likelihood(linearize(x, t, sde, score, MEASUREMENT))
        return denoised, likelihood.log_prob

    def exact(x, t):
        scale, std = float(sde.mean_scale(t)), float(sde.marginal_std(t))
        law = condition(mean, covariance, scale * np.eye(3), np.asarray(x, float), std)
        denoised, _, log_prob = condition(*law[:2], MATRIX, Y, NOISE)
        return denoised, log_prob

    (denoised, log_prob), wanted = (
        found(x, times),
        [exact(*at) for at in zip(x, times, strict=True)],
    )
    error = np.abs(denoised - np.stack([w[0] for w in wanted])).max()
    if log_prob is None:
        return error, None
    return error, np.abs(log_prob - np.stack([w[1] for w in wanted])).max()


# Of numbers near 1, through systems of a condition number below 100, in float32. The covariance of
# data given a particle is rounded to 1e-7 σ² / α²: 1e-4 at t = 0.8 of VP, 2e-3 at t = 1.
ROUNDING = 2e-3


@EVERY
def test_moment_matching_is_exact_for_normal_data(name):
    in_mean, in_log_prob = errors(MomentMatching(), SDES[name])
    assert in_mean < ROUNDING
    assert in_log_prob < ROUNDING
    in_mean, no_log_prob = errors(MomentMatching(num_iterations=4), SDES[name])
    assert in_mean < ROUNDING
    assert no_log_prob is None


@pytest.mark.parametrize("num_iterations", [None, 4])
def test_pigdm_is_exact_for_normal_data_alike_in_all_directions(num_iterations):
    guidance = functools.partial(PiGDM, num_iterations=num_iterations)
    isotropic = 0.6**2 * np.eye(3)
    assert errors(guidance(0.6), SDES["vp"], covariance=isotropic)[0] < ROUNDING
    assert errors(guidance(1.0), SDES["vp"], covariance=isotropic)[0] > 20 * ROUNDING
    assert errors(guidance(0.6), SDES["vp"])[0] > 20 * ROUNDING


@dataclass(frozen=True)
class Wrong(Guidance):
    change: Callable

    def likelihood(self, at):
        return MomentMatching().likelihood(self.change(at))


WRONG = {
    "no variance of the noise": lambda at: at._replace(noise_std=0.01 * at.noise_std),
    "sign": lambda at: at._replace(residual=-at.residual),
    "variance of the data": lambda at: at._replace(noise=0.8 * at.noise),
}


@pytest.mark.parametrize("bug", WRONG)
def test_a_wrong_likelihood_is_seen(bug):
    assert errors(Wrong(WRONG[bug]), SDES["ve"])[0] > 20 * ROUNDING


def curl(x, t):
    """A score of no density, whose Jacobian has no symmetry."""
    turn = jnp.array([[0.0, 0.9, -0.3], [-0.2, 0.0, 0.8], [0.5, -0.6, 0.0]])
    return -x / (1 + SDES["vp"].marginal_std(t) ** 2) + jnp.tanh(turn @ x)


def bend(x):
    """A measurement that is not linear."""
    matrix = jnp.array([[1.0, 0.5, -0.3], [0.2, -1.0, 0.8], [0.4, 0.1, 0.6]])
    return jnp.tanh(matrix @ x) + x[0] ** 2


def by_matrices(guidance, transposed):
    """The likelihood score at a particle, out of dense Jacobians; and that of the guidance."""
    sde, t = SDES["vp"], jnp.asarray(0.3)
    scale, noise = sde.mean_scale(t), sde.marginal_std(t) / sde.mean_scale(t)
    measurement = Measurement(bend, jnp.array([0.5, -0.4, 1.0]), NOISE)
    x = jnp.array([0.8, -0.5, 0.3])

    def denoise(u):
        return convert(curl(scale * u, t), scale * u, t, sde, source="score", target="denoised")

    D, J = denoise(x / scale), jax.jacobian(denoise)(x / scale)
    A, r = jax.jacobian(bend)(D), measurement.residual(D)
    J = J if transposed else J.T
    if isinstance(guidance, DPS):
        rate = 1 / NOISE**2
        if guidance.step_size is not None:
            rate = 2 * guidance.step_size / (noise**2 * jnp.linalg.norm(r))
        wanted = rate * J @ A.T @ r
    else:
        tau = getattr(guidance, "data_scale", None)
        V = noise**2 * J if tau is None else noise**2 * tau**2 / (noise**2 + tau**2) * jnp.eye(3)
        values, vectors = jnp.linalg.eigh(A @ (V + V.T) @ A.T / 2)
        turned = vectors.T @ r / (jnp.maximum(values, 0) + NOISE**2)
        wanted = J @ A.T @ vectors @ turned
    return wanted, guidance.likelihood(linearize(x, t, sde, curl, measurement)).score


@pytest.mark.parametrize(
    "guidance",
    [DPS(0.7), DPS(None), PiGDM(0.8), PiGDM(0.8, num_iterations=9), MomentMatching()],
    ids=repr,
)
def test_derivatives_are_those_of_what_is_not_linear(guidance):
    wanted, found = jax.jit(lambda: by_matrices(guidance, transposed=False))()
    np.testing.assert_allclose(found, wanted, rtol=5e-3, atol=5e-3 * np.abs(wanted).max())
    wanted, found = jax.jit(lambda: by_matrices(guidance, transposed=True))()
    assert np.abs(found - wanted).max() > 0.1 * np.abs(wanted).max()


# -- what is refused -------------------------------------------------------------------------------

SAMPLERS = {
    "guided": guided_diffusion,
    "twisted": lambda *args, **k: twisted_diffusion(*args, **k).particles,
}
FIRST = Measurement(lambda x: x[:1], jnp.array([1.0]), 0.5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_score_that_is_lost_says_when_and_how_many(name):
    def score(x, t):
        return jnp.where(jnp.any(x > 400), jnp.nan, -x / (1 + VE().marginal_std(t) ** 2))

    x = jnp.zeros((10, 2)).at[3].set(1_000.0)
    with pytest.raises(FloatingPointError, match=r"10\.0% of the particles .* after the step to t"):
        SAMPLERS[name](jax.random.key(0), score, VE(), FIRST, x, num_steps=20)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_measurement_may_be_all_that_is_traced(name, capsys):
    x = jax.random.normal(jax.random.key(3), (5, 2))
    options = {"progress_bar": True} if name == "guided" else {}

    def run(y, **options):
        measurement = Measurement(FIRST.forward, y, 0.5)
        score = lambda x, t: -x  # noqa: E731
        return SAMPLERS[name](
            jax.random.key(0), score, VP(), measurement, x, num_steps=20, **options
        )

    plain = run(FIRST.y)
    np.testing.assert_allclose(jax.jit(run)(FIRST.y), plain, rtol=1e-3, atol=1e-4)
    if options:
        np.testing.assert_allclose(run(FIRST.y, **options), plain, rtol=1e-3, atol=1e-4)
        assert "step" in capsys.readouterr().err


def test_a_measurement_is_a_pytree():
    pair = Measurement((lambda p, x: p * x, jnp.array(2.0)), jnp.ones(2), 0.5)
    residual = jax.jit(lambda measurement: measurement.residual(jnp.ones(2)))
    np.testing.assert_array_equal(residual(pair), -jnp.ones(2))


def test_bad_measurements_are_refused():
    y = jnp.ones(2)
    for noise_std in (0.0, -1.0, np.nan, "small"):
        with pytest.raises(ValueError, match="noise_std must be a finite number above 0"):
            Measurement(lambda x: x, y, noise_std)
    with pytest.raises(ValueError, match="noise_std must be one number"):
        Measurement(lambda x: x, y, jnp.ones(2))
    with pytest.raises(TypeError, match="forward must be a function"):
        Measurement(jnp.ones((2, 2)), y, 1.0)
    with pytest.raises(TypeError, match="y must hold floating-point numbers"):
        Measurement(lambda x: x, jnp.ones(2, int), 1.0)
    with pytest.raises(ValueError, match="y must be finite"):
        Measurement(lambda x: x, y.at[0].set(jnp.nan), 1.0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_bad_arguments_are_refused(name):
    x, key, score = jnp.ones((3, 2)), jax.random.key(0), lambda x, t: -x
    sample = SAMPLERS[name]
    with pytest.raises(TypeError, match="sde must be a diffusion"):
        sample(key, score, "VP", FIRST, x)
    with pytest.raises(TypeError, match="measurement must be a Measurement"):
        sample(key, score, VP(), jnp.ones(1), x)
    with pytest.raises(ValueError, match=r"shape of y, \(1,\), for one event of shape \(2,\)"):
        sample(key, score, VP(), Measurement(lambda x: x, jnp.ones(1), 1.0), x)
    with pytest.raises(TypeError, match="guidance must be one such as"):
        sample(key, score, VP(), FIRST, x, guidance=DPS)
    with pytest.raises(ValueError, match="x must be floating-point particles"):
        sample(key, score, VP(), FIRST, jnp.ones(3))
    with pytest.raises(ValueError, match="num_steps must be an integer"):
        sample(key, score, VP(), FIRST, x, num_steps=0)
    large = Measurement(lambda x: jnp.zeros(300) * x[0], jnp.zeros(300), 1.0)
    with pytest.raises(ValueError, match="a measurement of 300 numbers is too large"):
        sample(key, score, VP(), large, x, guidance=PiGDM())


def test_bad_options_are_refused():
    for wrong in (
        lambda: DPS(0.0),
        lambda: PiGDM(data_scale=-1.0),
        lambda: PiGDM(num_iterations=0),
        lambda: MomentMatching(num_iterations=1.5),
    ):
        with pytest.raises(ValueError, match="must be"):
            wrong()
    x, key, score = jnp.ones((3, 2)), jax.random.key(0), lambda x, t: -x
    with pytest.raises(ValueError, match="ess_threshold must be from 0 to 1"):
        twisted_diffusion(key, score, VP(), FIRST, x, ess_threshold=2)
    with pytest.raises(ValueError, match="has no log density"):
        twisted_diffusion(key, score, VP(), FIRST, x, guidance=PiGDM(num_iterations=3))
