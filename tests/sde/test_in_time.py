"""A network of noise levels at the times of any diffusion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import NoiseEnergyMLP, NoiseScoreMLP, score_fn
from numpyro_score.objectives import DiffusionScoreMatching
from numpyro_score.sde import EDM, VE, VP, CosineVP, InTime, SubVP
from numpyro_score.training import fit

SDES = [VE(0.1, 10.0), EDM(0.1, 10.0), VP(), CosineVP(), SubVP()]
ROWS = np.random.default_rng(1).normal(size=(300, 2)) @ [[1.0, 0.5], [0.0, 0.8]] + [1.0, -2.0]


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("cls", [NoiseEnergyMLP, NoiseScoreMLP])
def test_gaussian_data_have_their_exact_score_at_every_time(sde, cls):
    network = InTime(cls(2, width=8, key=jax.random.key(0)), sde).fit_base(ROWS)
    x = jnp.array([0.5, 1.5])
    for t in (0.1, 0.5, 0.95):
        scale, std = float(sde.mean_scale(t)), float(sde.marginal_std(t))
        covariance = scale**2 * np.cov(ROWS, rowvar=False, bias=True) + std**2 * np.eye(2)
        expected = -np.linalg.solve(covariance, x - scale * ROWS.mean(0))
        np.testing.assert_allclose(score_fn(network, (2,))(x, t), expected, rtol=1e-3)


def test_the_score_in_time_is_the_gradient_of_the_energy_in_time():
    def energy(x, noise_scale):
        return jnp.sum(jnp.sin(x) / noise_scale + x**4)

    sde, x, t = VP(), jnp.array([0.5, 1.5]), 0.4
    score = InTime(lambda x, noise_scale: -jax.grad(energy)(x, noise_scale), sde)(x, t)
    np.testing.assert_allclose(score, -jax.grad(InTime(energy, sde))(x, t), rtol=1e-5)


def test_fit_learns_it_over_time():
    sde = VE(0.1, 10.0)
    network = InTime(NoiseScoreMLP(2, width=8, depth=1, key=jax.random.key(0)), sde)
    rows, objective = jnp.asarray(ROWS, jnp.float32), DiffusionScoreMatching(sde)
    result = fit(jax.random.key(1), network, rows, objective, num_steps=10, progress_bar=False)
    np.testing.assert_allclose(result.network.network.base.mean, ROWS.mean(0), atol=0.1)
    assert result.network.network.head.any()


def test_a_function_and_its_parameters_are_a_network_that_learns():
    sde, rows = VE(0.1, 10.0), jnp.asarray(ROWS, jnp.float32)
    network = InTime((lambda p, x, s: (p - x) / (1 + s**2), jnp.zeros(2)), sde)
    objective = DiffusionScoreMatching(sde)
    result = fit(jax.random.key(1), network, rows, objective, num_steps=10, progress_bar=False)
    assert result.network.network.params.any()


def test_what_is_wrong_is_told():
    network = InTime(NoiseScoreMLP(2, width=8, key=jax.random.key(0)), VP())
    with pytest.raises(ValueError, match=r"one time t of shape \(\)"):
        network(jnp.ones(2), jnp.ones(3))
    with pytest.raises(TypeError, match="sde must be a diffusion"):
        InTime(network, "VP")
    bare = InTime(lambda x, s: x, VP())
    assert bare.fit_base(ROWS) is bare
