"""Samplers of diffusions: their order on a Gaussian whose answer is known, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.samplers import annealed_langevin, probability_flow, reverse_sde
from numpyro_score.sde import VE, VP, CosineVP, SubVP

MEAN, VARIANCE = 1.5, 0.25
SDES = {"ve": VE(0.1, 10.0), "vp": VP(t_min=0.02), "cosine": CosineVP(), "sub-vp": SubVP()}
EVERY = pytest.mark.parametrize("name", SDES)


def score_of(sde):
    """Of N(MEAN, VARIANCE) data."""

    def score(x, t):
        scale, std = sde.mean_scale(t), sde.marginal_std(t)
        return (scale * MEAN - x) / (scale**2 * VARIANCE + std**2)

    return score


def moments(sde, t):
    """Mean and standard deviation at a time."""
    scale, std = float(sde.mean_scale(t)), float(sde.marginal_std(t))
    return scale * MEAN, np.sqrt(scale**2 * VARIANCE + std**2)


def orders(errors):
    """How the error falls when the number of steps doubles, as a power."""
    return np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))


# -- order of convergence ----------------------------------------------------------------------


def flow_errors(sde, method, counts):
    """Of draws two standard deviations from the mean, which the flow keeps there."""
    (start_mean, start_std), (mean, std) = (moments(sde, t) for t in (sde.t_max, sde.t_min))
    x = jnp.full((1, 1), start_mean + 2 * start_std)
    return [
        abs(float(probability_flow(score_of(sde), sde, x, num_steps=n, method=method)[0, 0])
            - (mean + 2 * std))
        for n in counts
    ]  # fmt: skip


@EVERY
@pytest.mark.parametrize("method", ["heun", "dpm-solver++"])
def test_the_flow_is_of_second_order(name, method):
    errors = flow_errors(SDES[name], method, (20, 40, 80))
    assert errors[-1] < 0.01
    assert np.all(orders(errors) > 1.7), (errors, orders(errors))


def std_errors(sde, method, counts, num=200_000, **options):
    """Of the standard deviation of draws that start at the exact marginal, relative."""
    mean, std = moments(sde, sde.t_max)
    x = mean + std * jax.random.normal(jax.random.key(0), (num, 1))
    exact = moments(sde, sde.t_min)
    found = [
        reverse_sde(jax.random.key(n), score_of(sde), sde, x, num_steps=n, method=method, **options)
        for n in counts
    ]
    for draws in found[-1:]:
        assert abs(float(draws.mean()) - exact[0]) < 0.1 * exact[1]
    return [abs(float(draws.std()) / exact[1] - 1) for draws in found]


@EVERY
def test_the_exponential_integrator_is_of_second_order(name):
    errors = std_errors(SDES[name], "exponential", (4, 8, 16))
    print(name, errors, orders(errors))
    assert np.all(orders(errors) > 1.5), (errors, orders(errors))


@EVERY
def test_euler_maruyama_is_of_first_order(name):
    errors = std_errors(SDES[name], "euler-maruyama", (25, 50, 100))
    print(name, errors, orders(errors))
    assert np.all(np.abs(orders(errors) - 1) < 0.35), (errors, orders(errors))


@EVERY
def test_corrections_take_the_error_of_the_steps_away(name):
    sde = SDES[name]
    plain = std_errors(sde, "euler-maruyama", (20,))[0]
    corrected = std_errors(
        sde, "euler-maruyama", (20,), num_corrections=3, correction_scale=0.3
    )[0]  # fmt: skip
    print(name, plain, corrected)
    assert corrected < 0.6 * plain
