"""A tilted density: its normalizer in closed form, and where particles and chains start."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from numpyro_score.distributions import (
    DensityDistribution,
    EnergyDistribution,
    estimate_log_normalizer,
)
from numpyro_score.networks import (
    VAE,
    ConvEnergy,
    EnergyMLP,
    FlowDensity,
    GaussianBase,
    InnerProductEnergy,
    NormalizedEnergy,
    ScoreMLP,
    TiltedEnergy,
    from_distribution,
)
from numpyro_score.networks._frozen import trainable
from numpyro_score.networks.from_distribution import DistributionDensity
from numpyro_score.objectives import NoiseContrastiveEstimation
from numpyro_score.samplers import Langevin, Start, annealed_importance
from numpyro_score.training import fit

from .densities import KEY, STANDARD_ERRORS, integral, shaken

MEAN = np.array([100.0, -50.0])
FACTOR = np.array([[0.02, 0.0], [0.01, 0.03]])
PULL, CENTRE = 2_000.0, np.array([100.02, -50.03])


def gaussian(cls=DistributionDensity):
    """q = N(MEAN, FACTOR FACTORᵀ), far from a standard normal."""
    return cls(
        {"mean": jnp.asarray(MEAN, float), "factor": jnp.asarray(FACTOR, float)},
        lambda p: dist.MultivariateNormal(p["mean"], scale_tril=p["factor"]),
    )


def pull(x):
    return 0.5 * PULL * jnp.sum((x - CENTRE) ** 2)


def log_z():
    """log ∫ N(x; MEAN, Σ) exp(-½ PULL ‖x - CENTRE‖²) dx."""
    off = MEAN - CENTRE
    spread = FACTOR @ FACTOR.T + np.eye(2) / PULL
    log_det = np.linalg.slogdet(PULL * spread)[1]
    return -0.5 * log_det - 0.5 * off @ np.linalg.solve(spread, off)


def estimate(density, **options):
    tilted = EnergyDistribution(TiltedEnergy(density, pull), (2,))
    settings = {"num_particles": 500, "num_temperatures": 20} | options
    return estimate_log_normalizer(tilted, KEY, **settings)


def test_log_z_of_a_quadratic_tilt_from_draws_of_the_base():
    found = estimate(gaussian())
    assert found.ess > 400
    assert abs(found.log_normalizer - log_z()) < min(5 * found.standard_error, 0.1)


class TooWide(DistributionDensity):
    """What is planted: draws that are not those of the density."""

    def sample(self, rng_key, sample_shape=(), condition=None):
        draws = super().sample(rng_key, sample_shape)
        return self.params["mean"] + 1.3 * (draws - self.params["mean"])


def test_a_base_that_draws_from_something_else_is_seen():
    """Without temperatures in between, on whose way moves would mend it."""
    options = {"num_particles": 10_000, "num_temperatures": 1, "num_moves": 1}
    for density, is_right in ((gaussian(), True), (gaussian(TooWide), False)):
        found = estimate(density, **options)
        assert (abs(found.log_normalizer - log_z()) < 5 * found.standard_error) == is_right


def test_the_mean_weight_is_z_from_any_start():
    """Over seeds: errors of Z over their standard deviation have mean 0 and variance 1."""
    start_at = dist.Normal(jnp.array([0.5, -1.0]), jnp.array([0.7, 1.3])).to_event(1)
    start = Start(lambda key, num: start_at.sample(key, (num,)), start_at.log_prob)
    target = dist.Normal(jnp.zeros(2), jnp.array([1.0, 0.5])).to_event(1)

    def z_scores(start):
        def run(key):
            return annealed_importance(
                key, target.log_prob, 2, num_particles=200, num_temperatures=20, start=start
            ).log_weights

        keys = jax.random.split(KEY, 40)
        weights = np.exp(np.asarray(jax.jit(jax.vmap(run))(keys), float))
        return (weights.mean(1) - 1) / (weights.std(1) / np.sqrt(weights.shape[1]))

    z = z_scores(start)
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert 0.6 < z.std() < 1.5
    unnormalized = start._replace(log_prob=lambda v: start_at.log_prob(v) + 0.1)
    assert abs(z_scores(unnormalized).mean()) > 4 / np.sqrt(len(z))


def test_an_untrained_tilt_leaves_the_density_alone():
    data = jnp.asarray(MEAN, float) + jax.random.normal(KEY, (200, 2)) @ jnp.asarray(FACTOR.T)
    tilted = TiltedEnergy(gaussian(), EnergyMLP(2, width=4, key=KEY)).fit_base(data)
    np.testing.assert_allclose(tilted.network.base.mean, data.mean(0), rtol=1e-5)
    energies = jax.jit(jax.vmap(tilted))(data), jax.vmap(gaussian())(data)
    np.testing.assert_allclose(*energies, rtol=1e-4, atol=1e-3)
    constant = NormalizedEnergy(tilted).fit_base(data)
    assert constant.log_normalizer == 0.0
    assert constant.reference is not None


def test_the_constant_of_a_tilt_stays_where_it_is():
    """Log Z of a Gaussian base would be that of one which is not there."""
    rows = jax.random.normal(KEY, (200, 2)) @ jnp.asarray(FACTOR.T, float)
    energy = NormalizedEnergy(EnergyMLP(2, width=4, key=KEY), 0.5)
    tilted = TiltedEnergy(FlowDensity(2, width=4, key=KEY), energy).fit_base(rows)
    assert tilted.network.log_normalizer == 0.5
    assert energy.fit_base(rows).log_normalizer < -1.0


def test_untrained_tilts_by_other_energies():
    near = jax.random.normal(KEY, (200, 2)) @ jnp.asarray(FACTOR.T, float)
    flow = FlowDensity(2, width=4, key=KEY)
    product = TiltedEnergy(flow, InnerProductEnergy(ScoreMLP(2, width=4, key=KEY))).fit_base(near)
    energies = (eqx.filter_jit(energy)(near[0]) for energy in (product, flow))
    np.testing.assert_allclose(*energies, rtol=1e-5)
    pixels = from_distribution(lambda p: dist.Normal(p, 1.0).to_event(2), jnp.zeros((4, 4)))
    image = TiltedEnergy(pixels, ConvEnergy((4, 4), width=4, key=KEY))
    x = jnp.ones((4, 4))
    energies = (eqx.filter_jit(energy)(x) for energy in (image, image.reference))
    np.testing.assert_allclose(*energies, rtol=1e-5)


def test_a_base_that_is_no_summand_stays():
    class Own(eqx.Module):
        base: GaussianBase

        def __call__(self, x):
            return jnp.sum(self.base.standardization(x) ** 4)

    density, own = FlowDensity(2, width=4, key=KEY), Own(GaussianBase.standard(2))
    x = jnp.array([0.5, -1.0])
    np.testing.assert_allclose(TiltedEnergy(density, own)(x) - density(x), 1.0625, rtol=1e-4)


def test_only_the_tilt_is_trained():
    tilted = TiltedEnergy(FlowDensity(2, width=4, key=KEY), EnergyMLP(2, width=4, key=KEY))
    params = eqx.partition(tilted, trainable(tilted))[0]
    assert not jax.tree.leaves(params.density)
    assert jax.tree.leaves(params.network)
    grads = eqx.filter_jit(eqx.filter_grad(lambda t: t(jnp.ones(2))))(tilted)
    assert not any(g.any() for g in jax.tree.leaves(grads.density))
    assert grads.network.head.any()


def test_nce_with_the_base_as_its_noise_mends_it():
    """q is too wide and beside the data: the tilt makes it the density of the data, with its Z."""
    truth = dist.MultivariateNormal(jnp.array([0.5, -0.5]), jnp.array([[1.0, 0.4], [0.4, 0.6]]))
    density = from_distribution(lambda p: dist.Normal(p, 1.3).to_event(1), jnp.zeros(2))

    def quadratic(p, x):
        return 0.5 * x @ (p["A"] + p["A"].T) @ x - p["b"] @ x + p["c"]

    start = {"A": jnp.zeros((2, 2)), "b": jnp.zeros(2), "c": jnp.zeros(())}
    result = fit(
        KEY,
        TiltedEnergy(density, (quadratic, start)),
        truth.sample(KEY, (20_000,)),
        NoiseContrastiveEstimation(DensityDistribution(density, (2,)), num_noise=4),
        num_steps=500,
        learning_rate=2e-2,
        validation_fraction=0.0,
        progress_bar=False,
    )
    x = truth.sample(jax.random.key(1), (200,))
    off = -jax.vmap(result.network)(x) - truth.log_prob(x)
    assert abs(off.mean()) < 0.03  # of the normalizer
    assert off.std() < 0.1
    np.testing.assert_array_equal(result.network.density.tree.params, density.params)


def test_nce_asks_for_a_constant():
    density, batch = gaussian(), jnp.zeros((4, 2))
    objective = NoiseContrastiveEstimation(DensityDistribution(density, (2,)))
    network = EnergyMLP(2, width=4, key=KEY)
    with pytest.raises(ValueError, match="a TiltedEnergy has no free constant"):
        objective(TiltedEnergy(density, network), batch, KEY)
    flow = FlowDensity(2, width=4, key=KEY)
    for given in (
        NormalizedEnergy(TiltedEnergy(density, network)),
        TiltedEnergy(density, NormalizedEnergy(network)),
        flow,
    ):
        assert eqx.filter_eval_shape(objective, given, batch, KEY).shape == (4,)


def test_langevin_runs_start_at_draws_of_the_base():
    """Two modes that no chain moves between: both are there from the start."""
    modes = dist.MixtureSameFamily(
        dist.Categorical(jnp.array([0.3, 0.7])),
        dist.Normal(jnp.array([[-20.0], [20.0]]), 1.0).to_event(1),
    )
    tilted = TiltedEnergy(from_distribution(lambda p: modes, jnp.zeros(())), lambda x: 0.0 * x[0])
    d = EnergyDistribution(tilted, (1,), sampler=Langevin(num_steps=10, adapt_step_size=False))
    draws = np.asarray(d.sample(KEY, (2_000,)))[:, 0]
    assert abs((draws > 0).mean() - 0.7) < 5 * np.sqrt(0.21 / 2_000)
    assert (np.abs(np.abs(draws) - 20) < 6).all()


def test_a_bound_is_no_start_of_annealing():
    """Draws of a VAE are not those of exp(bound), whose Z is 1 on average over its noise only."""
    network = shaken(VAE((2,), 1, depth=0, num_draws=4, key=KEY))
    log_z = np.log(integral(network, (2,), 0.0, 1.0))
    tilted = EnergyDistribution(TiltedEnergy(network, lambda x: 0.0 * x[0]), (2,))
    found = estimate_log_normalizer(tilted, KEY, num_particles=500, num_temperatures=20)
    assert abs(found.log_normalizer - log_z) < STANDARD_ERRORS * found.standard_error < 0.3
    # What is planted: Z is 1, as it were from the draws.
    assert abs(log_z) > STANDARD_ERRORS * found.standard_error


def test_the_base_must_be_a_density():
    with pytest.raises(TypeError, match=r"takes a density network .* got EnergyMLP"):
        TiltedEnergy(EnergyMLP(2, width=4, key=KEY), pull)
    flow = FlowDensity(2, width=4, key=KEY)
    assert isinstance(TiltedEnergy(flow, pull).base, GaussianBase)
