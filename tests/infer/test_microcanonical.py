"""MCLMC and AdjustedMCLMC: what BlackJAX's tuning gives them, and what they say of their bias."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from numpyro.infer import MCMC

from numpyro_score.infer import MCLMC, AdjustedMCLMC
from tests.infer.test_statistics import COVARIANCE, LOC, assert_model_recovered, exact_model, run
from tests.statistics import Moments, assert_recovers

pytestmark = pytest.mark.statistics

KERNELS = pytest.mark.parametrize("cls", [MCLMC, AdjustedMCLMC])
SIZE = 20
SD = jnp.geomspace(0.1, 10.0, SIZE)


def potential_fn(z):
    """Independent normals around 100 with standard deviations ``SD``."""
    return 0.5 * jnp.sum(((z - 100.0) / SD) ** 2)


def sample(kernel, num_samples, start=100.0, num_warmup=1000):
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), init_params=jnp.full((4, SIZE), start))
    return mcmc.get_samples(group_by_chain=True), mcmc.last_state


def test_mclmc_is_close_on_a_shifted_anisotropic_and_skewed_target():
    """Its bias at the default tuning is below 5 standard errors of 4 × 5,000 draws."""
    assert_model_recovered(run(MCLMC(exact_model), num_samples=5000))


@KERNELS
def test_tuning_finds_the_scales_from_afar(cls):
    """1,000 standard deviations away, where a particle of constant speed would take ages."""
    draws, state = sample(cls(potential_fn=potential_fn), 3000, start=0.0)
    assert_recovers(draws, Moments(np.full(SIZE, 100.0), np.asarray(SD)))
    variances = state.adapt_state.inverse_mass_matrix / SD**2
    assert variances.min() > 0.2
    assert variances.max() < 5


def test_mclmc_reaches_the_energy_variance_that_it_was_asked_for():
    for desired in (5e-4, 5e-3):
        kernel = MCLMC(potential_fn=potential_fn, desired_energy_var=desired)
        _, state = sample(kernel, 2000)
        ratio = state.energy_variance / desired
        assert ratio.min() > 0.4, ratio
        assert ratio.max() < 2.5, ratio


def test_the_energy_variance_tells_of_a_bias_that_r_hat_does_not_see():
    """A step three times as large: every standard deviation is off, and the chains agree."""
    kernel = MCLMC(
        potential_fn=potential_fn,
        step_size=12.0,
        L=12.0,
        inverse_mass_matrix=np.asarray(SD) ** 2,
        adapt_step_size=False,
    )
    draws, state = sample(kernel, 5000)
    with pytest.raises(AssertionError, match="sd is"):
        assert_recovers(draws, Moments(np.full(SIZE, 100.0), np.asarray(SD)))
    assert state.energy_variance.min() > 20 * 5e-4


def test_the_acceptance_of_adjusted_mclmc_follows_its_target_from_above():
    """BlackJAX averages a step size that still grows, which errs on the safe side."""
    reached = []
    for target in (0.6, 0.8):
        kernel = AdjustedMCLMC(potential_fn=potential_fn, target_accept_prob=target)
        _, state = sample(kernel, 1000)
        reached.append(state.mean_accept_prob)
        assert target - 0.05 < state.mean_accept_prob.min()
    assert reached[0].max() < reached[1].min()


def test_far_from_the_origin_the_variances_do_not_drown():
    """E[x²] - E[x]² of values around 10⁵ has no digit left in float32."""
    kernel = AdjustedMCLMC(potential_fn=lambda z: potential_fn(z - 1e5))
    draws, _ = sample(kernel, 1000, start=1e5 + 100.0)
    sd = np.asarray(draws, np.float64).std((0, 1))[5:]  # the first ones are below a float32's step
    np.testing.assert_allclose(sd, SD[5:], rtol=0.25)


@KERNELS
def test_without_adaptation_nothing_is_tuned(cls):
    kernel = cls(
        potential_fn=potential_fn,
        step_size=0.5,
        L=2.0,
        inverse_mass_matrix=np.full(SIZE, 3.0),
        adapt_step_size=False,
    )
    _, state = sample(kernel, 2, num_warmup=10)
    for value, expected in zip(state.adapt_state, (0.5, 2.0, 3.0), strict=True):
        np.testing.assert_allclose(value, expected)


@KERNELS
def test_one_dimension_is_refused(cls):
    mcmc = MCMC(cls(potential_fn=lambda z: 0.5 * z**2), num_warmup=10, num_samples=1)
    with pytest.raises(ValueError, match="needs at least 2 unconstrained parameters"):
        mcmc.run(random.key(0), init_params=jnp.zeros(()))


@KERNELS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"L": 0.0}, "L must be a finite number above 0"),
        ({"step_size": np.inf}, "step_size must be a finite number above 0"),
        ({"inverse_mass_matrix": COVARIANCE}, "vector of variances"),
        ({"inverse_mass_matrix": -np.ones(3)}, "finite and above 0"),
    ],
)
def test_arguments_out_of_range(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(exact_model, **options)


@KERNELS
def test_a_metric_of_another_size(cls):
    kernel = cls(potential_fn=potential_fn, inverse_mass_matrix=np.ones(len(LOC)))
    with pytest.raises(ValueError, match="for 3 parameters, but the model has 20"):
        kernel.init(random.key(0), 10, jnp.zeros(SIZE))


def test_mclmc_survives_a_wall():
    """Where the density ends, the particle stays and takes another direction."""
    wall = lambda z: jnp.where(z[0] > 0, 0.5 * jnp.sum(z**2), jnp.nan)  # noqa: E731
    kernel = MCLMC(potential_fn=wall, step_size=1.0, adapt_step_size=False)
    state = kernel.init(random.key(0), 0, jnp.ones(3))
    step = jax.jit(lambda state, _: (kernel.sample(state, (), {}),) * 2)
    _, states = jax.lax.scan(step, state, None, length=500)
    assert bool(states.diverging.any())
    assert bool((states.z[:, 0] > 0).all())
    assert bool(jnp.isfinite(states.potential_energy).all())
