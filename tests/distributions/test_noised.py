"""A diffusion at one noise level, and the ratio of its densities at two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.distributions import (
    DiffusionDistribution,
    EnergyDistribution,
    ScoreDistribution,
)
from numpyro_score.distributions._noised import between_noise
from numpyro_score.sde import VE, VP, time_of
from tests.mixtures import Mixture, ncsn_toy

TOY = ncsn_toy()
SKEWED = Mixture(np.ones(1), np.array([[1.0, -1.0]]), np.array([[[1.0, 0.8], [0.8, 2.0]]]))
X = jnp.array([[5.0, 4.0], [-6.0, -5.0], [0.5, 0.2], [2.0, -7.0]])


def log_density(mixture, sde, noise_scale):
    """Of the variable in units of the data, from the closed form of the noised one."""
    t = time_of(sde, noise_scale)
    scale = sde.mean_scale(t) / sde.mean_scale(jnp.asarray(sde.t_min))
    return -jax.vmap(mixture.energy(sde), (0, None))(scale * X, t) + 2 * jnp.log(scale)


@pytest.mark.parametrize("sde", [VE(0.02, 20.0), VP()], ids=["ve", "vp"])
@pytest.mark.parametrize("mixture", [TOY, SKEWED], ids=["toy", "skewed"])
@pytest.mark.parametrize("network", ["energy", "score"])
def test_ratio_of_two_levels_is_that_of_the_densities(sde, mixture, network):
    d = DiffusionDistribution(getattr(mixture, network)(sde), sde, (2,))

    @jax.jit
    def ratios(lower, upper):
        exact = log_density(mixture, sde, lower) - log_density(mixture, sde, upper)
        return between_noise(d, lower, upper, 16).log_prob(X), exact

    for lower, upper in ((0.5, 0.8), (0.0, 0.5), (3.0, 6.0)):
        # Rounding of float32 in energies of up to 100, and of the rule.
        np.testing.assert_allclose(*ratios(lower, upper), atol=5e-3)


def test_catches_a_ratio_without_the_divergence_and_of_the_wrong_sign():
    sde = VE(0.02, 20.0)
    d = DiffusionDistribution(TOY.score(sde), sde, (2,))
    found = between_noise(d, jnp.array(0.5), jnp.array(0.8), 16).log_prob(X)
    exact = log_density(TOY, sde, 0.5) - log_density(TOY, sde, 0.8)
    assert jnp.abs(found + exact).max() > 0.1
    without = lambda x: 0.5 * (log_density(TOY, sde, 0.5) + log_density(TOY, sde, 0.8))  # noqa: E731
    assert jnp.abs(without(X) - exact).max() > 0.1


def test_one_probe_is_exact_for_a_diagonal_jacobian():
    sde = VE(0.02, 20.0)
    score = lambda x, t: -x / (jnp.array([1.0, 4.0]) + sde.marginal_std(t) ** 2)  # noqa: E731
    ratios = [
        between_noise(
            DiffusionDistribution(score, sde, (2,), divergence=divergence),
            jnp.array(0.5),
            jnp.array(2.0),
            8,
        ).log_prob(X)
        for divergence in ("exact", "hutchinson")
    ]
    np.testing.assert_allclose(*ratios, rtol=1e-5)


def test_with_a_condition_and_in_batches():
    sde = VE(0.1, 10.0)
    energy = lambda x, t, c: 0.5 * jnp.sum((x - c) ** 2) / (1 + sde.marginal_std(t) ** 2)  # noqa: E731
    d = DiffusionDistribution(energy, sde, (2,), condition=jnp.arange(6.0).reshape(3, 2))
    found = between_noise(d, jnp.array(0.5), jnp.array(1.0), 16).log_prob(jnp.ones((4, 3, 2)))
    r2 = jnp.sum((1 - d.condition) ** 2, 1)
    exact = -0.5 * r2 * (1 / 1.25 - 1 / 2.0) - jnp.log(1.25 / 2.0)
    np.testing.assert_allclose(found, jnp.broadcast_to(exact, (4, 3)), rtol=1e-4)


@pytest.mark.parametrize("sde", [VE(0.02, 20.0), VP()], ids=["ve", "vp"])
def test_without_normalizer_is_the_distribution_up_to_a_number(sde):
    energy = DiffusionDistribution(TOY.energy(sde), sde, (2,)).without_normalizer()
    score = DiffusionDistribution(TOY.score(sde), sde, (2,)).without_normalizer(2.0)
    assert isinstance(energy, EnergyDistribution)
    assert isinstance(score, ScoreDistribution)
    assert not energy.normalized
    np.testing.assert_allclose(energy.log_prob(X), log_density(TOY, sde, 0.0), atol=1e-4)
    noised = log_density(TOY, sde, 2.0)
    np.testing.assert_allclose(
        score.log_prob(X) - score.log_prob(X[:1]), noised - noised[0], atol=0.02
    )
