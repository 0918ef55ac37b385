"""Samplers of diffusions: their order on a Gaussian whose answer is known, and what they refuse.

The score of Gaussian data is linear, and so is each step: what it does to a mean and a variance is
read off a few particles, without any Monte Carlo error.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.samplers import annealed_langevin, probability_flow, reverse_sde
from numpyro_score.samplers._diffusion import Times
from numpyro_score.samplers._relative import look
from numpyro_score.samplers.probability_flow import DPMSolver, Heun
from numpyro_score.samplers.reverse_sde import Corrected, EulerMaruyama, Exponential
from numpyro_score.sde import VE, VP, CosineVP, SubVP, time_grid

MEAN, VARIANCE = 1.5, 0.25
SDES = {"ve": VE(0.1, 10.0), "vp": VP(t_min=0.02), "cosine": CosineVP(), "sub-vp": SubVP()}
EVERY = pytest.mark.parametrize("name", SDES)
COUNTS = (20, 40, 80)


def score_of(sde):
    """Of N(MEAN, VARIANCE) data."""

    def score(x, t):
        scale, std = sde.mean_scale(t), sde.marginal_std(t)
        return (scale * MEAN - x) / (scale**2 * VARIANCE + std**2)

    return score


def moments(sde, t):
    """Mean and variance at a time."""
    scale, std = float(sde.mean_scale(t)), float(sde.marginal_std(t))
    return scale * MEAN, scale**2 * VARIANCE + std**2


def orders(errors):
    """How the error falls when the number of steps doubles, as a power."""
    return np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))


# -- the deterministic flow --------------------------------------------------------------------


def flow_errors(sde, method):
    """Of draws two standard deviations from the mean, which the flow keeps there."""
    (start, start_variance), (end, variance) = (moments(sde, t) for t in (sde.t_max, sde.t_min))
    x = jnp.full((1, 1), start + 2 * np.sqrt(start_variance))
    flow = lambda n: probability_flow(score_of(sde), sde, x, num_steps=n, method=method)  # noqa: E731
    return [abs(flow(n).item() - (end + 2 * np.sqrt(variance))) for n in COUNTS]


@EVERY
@pytest.mark.parametrize("method", ["heun", "dpm-solver++"])
def test_the_flow_is_of_second_order(name, method):
    errors = flow_errors(SDES[name], method)
    assert errors[-1] < 0.01
    assert np.all(np.abs(orders(errors) - 2) < 0.35), (errors, orders(errors))


@pytest.mark.parametrize(("stepper", "name"), [(Heun, "heun"), (DPMSolver, "dpm-solver++")])
def test_a_rule_of_first_order_is_seen(stepper, name, monkeypatch):
    if stepper is Heun:  # Euler's rule

        def step(self, rng_key, x, memory, times, score):
            here = times.now * 0 + self.sde.marginal_std(times.now)
            there = self.sde.marginal_std(times.next)
            return x - (there - here) * here * score(x, times.now), ()

        monkeypatch.setattr(Heun, "step", step)
    else:
        right = DPMSolver.step

        def forgetful(self, rng_key, x, memory, times, score):
            return right(self, rng_key, x, self.init(x), times, score)

        monkeypatch.setattr(DPMSolver, "step", forgetful)
    assert np.all(orders(flow_errors(SDES["ve"], name)) < 1.3)


# -- the reverse diffusion ---------------------------------------------------------------------


def law(stepper, sde, num_steps, monkeypatch):
    """Mean and variance at t_min of draws that start with those of t_max."""
    score = jax.vmap(score_of(sde), (0, None))
    num_noises = 1 + getattr(stepper, "num_steps", 0)

    @jax.jit
    def affine(times):
        def run(x, which):
            calls = itertools.count()
            draw = lambda key, shape, dtype: jnp.full(shape, float(next(calls) == which))  # noqa: E731
            monkeypatch.setattr(jax.random, "normal", draw)
            x = jnp.full((1, 1), x)
            return stepper.step(jax.random.key(0), x, stepper.init(x), times, score)[0][0, 0]

        offset = run(0.0, -1)
        noises = jnp.stack([run(0.0, k) - offset for k in range(num_noises)])
        return run(1.0, -1) - offset, offset, jnp.sum(noises**2)

    mean, variance = moments(sde, sde.t_max)
    times = time_grid(sde, num_steps)
    for now, after in itertools.pairwise(times):
        slope, offset, noise = map(float, affine(Times(now, after)))
        mean, variance = slope * mean + offset, slope**2 * variance + noise
    return mean, variance


def errors_of(stepper, sde, counts, monkeypatch):
    """Relative errors of the variance."""
    mean, variance = moments(sde, sde.t_min)
    found = [law(stepper, sde, n, monkeypatch) for n in counts]
    assert abs(found[-1][0] - mean) < 0.1 * np.sqrt(variance)
    return [abs(v / variance - 1) for _, v in found]


@EVERY
def test_the_exponential_integrator_is_of_second_order(name, monkeypatch):
    sde = SDES[name]
    errors = errors_of(Exponential(sde), sde, (40, 80, 160), monkeypatch)
    assert np.all(np.abs(orders(errors) - 2) < 0.35), (errors, orders(errors))


def test_an_exponential_rule_without_its_midpoint_is_seen(monkeypatch):
    sde, looks = SDES["vp"], []

    def twice(x, t, sde, score):
        looks.append(look(x, t, sde, score))
        return looks[-1] if len(looks) % 2 else looks[-2]

    monkeypatch.setitem(Exponential.step.__globals__, "look", twice)
    errors = errors_of(Exponential(sde), sde, (40, 80, 160), monkeypatch)
    assert np.all(orders(errors) < 1.4), orders(errors)


@EVERY
def test_euler_maruyama_is_of_first_order(name, monkeypatch):
    sde = SDES[name]
    errors = errors_of(EulerMaruyama(sde), sde, (80, 160, 320), monkeypatch)
    assert np.all(np.abs(orders(errors) - 1) < 0.35), (errors, orders(errors))


@EVERY
def test_corrections_take_errors_of_the_steps_away(name, monkeypatch):
    sde = SDES[name]
    plain = EulerMaruyama(sde)
    corrected = Corrected(plain, sde, num_steps=4, scale=0.3)
    before, after = (errors_of(s, sde, (40,), monkeypatch)[0] for s in (plain, corrected))
    assert after < 0.5 * before, (before, after)


@pytest.mark.parametrize("method", ["exponential", "euler-maruyama"])
def test_draws_have_the_law_of_the_data(method):
    # Two modes of unequal weight: at a noise below their distance they no longer mix.
    sde, centres, weights = VE(0.05, 20.0), jnp.array([[-3.0], [3.0]]), jnp.array([0.2, 0.8])

    def energy(x, t):
        distances = jnp.sum((x - centres) ** 2, 1) / (0.25 + sde.marginal_std(t) ** 2)
        return -jax.nn.logsumexp(jnp.log(weights) - 0.5 * distances)

    x = sde.prior((1,)).sample(jax.random.key(0), (4_000,))
    num_corrections = 1 if method == "euler-maruyama" else 0
    draws = reverse_sde(
        jax.random.key(1), energy, sde, x, num_steps=60, method=method,
        num_corrections=num_corrections,
    )  # fmt: skip
    assert abs((draws > 0).mean() - 0.8) < 0.03  # 4.7 standard errors
    within = draws[draws > 0] - 3
    assert abs(within.mean()) < 0.05
    assert abs(within.std() - np.sqrt(0.25 + 0.05**2)) < 0.05
    flow = probability_flow(energy, sde, x, num_steps=60)
    assert abs((flow > 0).mean() - 0.8) < 0.03


# -- Langevin through noise --------------------------------------------------------------------


def test_annealed_langevin_finds_the_weights_that_langevin_misses():
    """The toy of Song & Ermon (2019), figure 3: weight 0.8 of the mode at (5, 5)."""
    centres = jnp.array([[-5.0, -5.0], [5.0, 5.0]])

    def energy(x, noise_scale):
        distances = jnp.sum((x - centres) ** 2, 1) / (1 + noise_scale**2)
        return -jax.nn.logsumexp(jnp.log(jnp.array([0.2, 0.8])) - 0.5 * distances)

    x = jax.random.uniform(jax.random.key(0), (1_280, 2), minval=-8.0, maxval=8.0)
    levels = np.geomspace(10.0, 0.1, 10)

    def weight(levels, step_size, num_steps):
        draws = annealed_langevin(
            jax.random.key(1), energy, levels, x, step_size=step_size, num_steps=num_steps
        )
        return float((draws.sum(1) > 0).mean())

    assert abs(weight(levels, 1e-3, 100) - 0.8) < 0.05
    assert abs(weight(levels[-1:], 0.05, 1_000) - 0.5) < 0.06


# -- what is refused ---------------------------------------------------------------------------

RUNS = {
    "flow": lambda score, x, **k: probability_flow(score, VE(), x, num_steps=20, **k),
    "sde": lambda score, x, **k: reverse_sde(jax.random.key(0), score, VE(), x, num_steps=20, **k),
    "annealed": lambda score, x, **k: annealed_langevin(
        jax.random.key(0), score, (2.0, 1.0, 0.5), x, step_size=0.1, num_steps=3, **k
    ),
}


@pytest.mark.parametrize("progress_bar", [False, True])
@pytest.mark.parametrize("name", RUNS)
def test_a_score_that_is_lost_says_when_and_how_many(name, progress_bar):
    def score(x, t):
        return jnp.where(jnp.any(x > 40), jnp.nan, -x)

    x = jnp.zeros((10, 2)).at[3].set(100.0)
    with pytest.raises(FloatingPointError, match=r"10\.0% of the particles .* after the step to t"):
        RUNS[name](score, x, progress_bar=progress_bar)


@pytest.mark.parametrize("name", RUNS)
def test_under_jit_and_with_a_bar_draws_are_the_same(name, capsys):
    x = jax.random.normal(jax.random.key(3), (5, 2))
    score = lambda x, t: -x / (1 + t)  # noqa: E731
    plain = RUNS[name](score, x)
    np.testing.assert_allclose(jax.jit(lambda x: RUNS[name](score, x))(x), plain, rtol=1e-4)
    np.testing.assert_allclose(RUNS[name](score, x, progress_bar=True), plain, rtol=1e-4)
    assert "step" in capsys.readouterr().err


@pytest.mark.parametrize("name", RUNS)
def test_bad_particles_are_refused(name):
    for x in (jnp.ones(3), jnp.ones((3, 2), int)):
        with pytest.raises(ValueError, match=r"x must be floating-point particles of shape"):
            RUNS[name](lambda x, t: -x, x)


def test_bad_arguments_are_refused():
    x, key = jnp.ones((3, 2)), jax.random.key(0)
    score = lambda x, t: -x  # noqa: E731
    with pytest.raises(TypeError, match="sde must be a diffusion"):
        probability_flow(score, "VP", x)
    with pytest.raises(ValueError, match="method must be one of"):
        probability_flow(score, VP(), x, method="euler")
    with pytest.raises(ValueError, match="method must be one of"):
        reverse_sde(key, score, VP(), x, method="heun")
    with pytest.raises(ValueError, match="num_steps must be an integer"):
        reverse_sde(key, score, VP(), x, num_steps=0)
    for levels in ((1.0, 2.0), (), (1.0, -1.0), 3.0):
        with pytest.raises(ValueError, match="noise_scales"):
            annealed_langevin(key, score, levels, x, step_size=0.1)
    with pytest.raises(ValueError, match=r"a network must return"):
        probability_flow(lambda x, t: jnp.ones(5), VP(), x)
