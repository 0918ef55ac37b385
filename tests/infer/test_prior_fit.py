"""Priors whose score is not that of their draws, which moves of particles would follow."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_score.distributions import DiffusionDistribution
from numpyro_score.infer import AnnealedLangevin, TemperedSMC
from numpyro_score.infer._particle_target import particle_target
from numpyro_score.infer._prior_fit import misfit
from numpyro_score.sde import VE, time_of

WAVES = 3.0


def log_prior(z, size, slope=0.0):
    """A normal, and waves of a score of ``size`` that average out over it; and another site."""
    x = z["x"]
    waves = size * jnp.sum(jnp.sin(WAVES * x)) / WAVES
    return -0.5 * jnp.sum((x - slope * z["c"]) ** 2) + waves - 0.5 * z["c"] ** 2


@pytest.mark.parametrize("slope", [0.0, 2.0])
@pytest.mark.parametrize("size", [0.0, 0.5, 1.0])
def test_is_the_share_of_the_error_in_the_score(size, slope):
    c_key, x_key = jax.random.split(jax.random.key(0))
    c = jax.random.normal(c_key, (512,))
    x = slope * c[:, None] + jax.random.normal(x_key, (512, 4))
    value, error = misfit(
        jax.random.key(1), lambda z: log_prior(z, size, slope), {"x": x, "c": c}, "x"
    )
    # Of a standard normal E s·δ = -E[x cos(kx)] size = 0, and E cos² = ½ but for exp(-2k²).
    exact = 0.5 * size**2 / (1 + 0.5 * size**2)
    assert error < 0.05
    assert abs(value - exact) < 4 * error


def prior_with_error(at_noise=0.0):
    """A prior whose energy is wrong at noise below 0.05: too little to change draws any more."""
    sde = VE(0.02, 5.0)

    def energy(x, t):
        noise = sde.marginal_std(t)
        wrong = jnp.exp(-((noise / 0.04) ** 2)) * jnp.sum(jnp.sin(WAVES * x)) / WAVES
        return 0.5 * jnp.sum(x**2) / (1 + noise**2) + 1.5 * wrong

    prior = DiffusionDistribution(energy, sde, (4,))
    return prior.marginal(time_of(sde, at_noise)) if at_noise else prior


@pytest.mark.parametrize("sampler", [TemperedSMC, AnnealedLangevin])
def test_particles_tell_of_it_and_of_the_cure(sampler):
    def model(prior):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=1.0)

    options = {"num_particles": 300, "num_chains": 2, "progress_bar": False}
    # Warnings are errors here, so that the run ends with it.
    with pytest.raises(UserWarning, match=r"site 'x' at its least noise .* quarter of that"):
        sampler(lambda: model(prior_with_error()), **options).run(jax.random.key(0))
    cured = sampler(lambda: model(prior_with_error(0.3)), **options)
    cured._draw_prior(jax.random.key(0), particle_target(cured.sampler.model, (), {}))
