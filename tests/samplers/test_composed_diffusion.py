"""Draws of products of diffusions, against products of Gaussian mixtures, which are mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.distributions import DiffusionDistribution, EnergyDistribution, Product
from numpyro_score.networks import score_fn
from numpyro_score.samplers import AnnealedParticles, composed_diffusion, reverse_sde
from numpyro_score.sde import VE, VP
from tests.mixtures import Mixture, noised, product_of

VE_SDE = VE(0.02, 20.0)
UNIT = np.eye(2)
FACTORS = (
    Mixture(
        np.array([0.5, 0.5]), np.array([[-3.0, 0.0], [3.0, 0.0]]), np.stack([UNIT, 0.5 * UNIT])
    ),
    Mixture(
        np.array([0.7, 0.3]), np.array([[-3.0, 1.0], [3.0, 0.0]]), np.stack([0.5 * UNIT, UNIT])
    ),
)
NUM_RUNS = 16


def exact_product(sde):
    return product_of(*(noised(factor, sde) for factor in FACTORS))


def right(x):
    """Share of draws in the right mode, of each run."""
    return np.asarray(x[..., 0] > 0).mean(-1)


def runs(kind, sde=VE_SDE, num_runs=NUM_RUNS, **options):
    networks = [getattr(factor, kind)(sde) for factor in FACTORS]

    def run(key):
        draws = composed_diffusion(key, networks, sde, (2,), 400, num_levels=40, **options)
        return draws.positions

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), num_runs)))


def off(x, exact):
    """By how many standard errors over runs the weight of the right mode is off; their size."""
    shares = right(x)
    error = shares.std(ddof=1) / np.sqrt(len(shares))
    return (shares.mean() - exact.weights[exact.means[:, 0] > 0].sum()) / error, error


@pytest.mark.statistics
@pytest.mark.parametrize(("kind", "sde"), [("energy", VE_SDE), ("score", VP())], ids=["ve", "vp"])
def test_weights_and_moments_are_those_of_the_product(kind, sde):
    exact = exact_product(sde)
    x = runs(kind, sde)
    away, error = off(x, exact)
    assert error < 0.012
    assert abs(away) < 5
    for component in (0, 3):  # of the four, those that have any weight
        chosen = x[(x[..., 0] > 0) == (component == 3)]
        covariance = exact.covariances[component]
        # Resampled draws are not independent: half of them count.
        errors = np.sqrt(np.diag(covariance) / (len(chosen) / 2))
        assert np.all(np.abs(chosen.mean(0) - exact.means[component]) < 5 * errors)
        np.testing.assert_allclose(chosen.std(0), np.sqrt(np.diag(covariance)), rtol=0.06)


def test_the_sum_of_scores_in_a_reverse_diffusion_is_wrong():
    """The naive way, with draws enough to tell: by 10 standard errors and more."""
    exact = exact_product(VE_SDE)
    scores = [score_fn(factor.energy(VE_SDE), (2,)) for factor in FACTORS]
    x = VE_SDE.prior((2,)).sample(jax.random.key(0), (4_000,))
    x = reverse_sde(
        jax.random.key(1), lambda x, t: scores[0](x, t) + scores[1](x, t), VE_SDE, x, num_steps=100
    )
    share = exact.weights[exact.means[:, 0] > 0].sum()
    error = np.sqrt(share * (1 - share) / 4_000)
    assert abs(right(x) - share) > 8 * error


@pytest.mark.statistics
def test_moves_without_weights_are_seen():
    """Annealed MCMC alone keeps the weights that modes had where they parted."""
    away, _ = off(runs("energy", reweight=False), exact_product(VE_SDE))
    assert abs(away) > 6


def test_a_score_that_is_lost_is_told():
    def score(x, t):
        return jnp.where((x > 1) & (VE_SDE.marginal_std(t) < 1), jnp.nan, -x)

    with pytest.raises(FloatingPointError, match=r"% of the particles are no longer finite"):
        composed_diffusion(jax.random.key(0), [score], VE_SDE, (1,), 50, num_levels=10)


def test_few_effective_particles_are_told():
    with pytest.warns(UserWarning, match="particles were effective"):
        composed_diffusion(
            jax.random.key(0),
            [lambda x, t: -x / (1 + VE_SDE.marginal_std(t) ** 2)],
            VE_SDE,
            (1,),
            200,
            num_levels=2,
            log_factor=lambda x: -2_000 * jnp.sum((x - 2) ** 2),
        )


# -- factors that are 0 somewhere --------------------------------------------------------------

CUT_SDE = VE(0.01, 10.0)
KEY = jax.random.key(0)


def unit(x, t):
    """The score of N(0, 1) with its noise."""
    return -x / (1 + CUT_SDE.marginal_std(t) ** 2)


def cut(log_factor, **options):
    options |= {"num_levels": 30, "log_factor": log_factor}
    return composed_diffusion(KEY, [unit], CUT_SDE, (1,), 500, **options)


def product_with(log_factor):
    factors = [
        DiffusionDistribution(unit, CUT_SDE, (1,)),
        EnergyDistribution(lambda x: -log_factor(x), (1,)),
    ]
    return Product(factors, sampler=AnnealedParticles(500, num_levels=30))


CUTS = {
    "half of the line": lambda x: jnp.where(x[0] > 0, 0.0, -jnp.inf),
    # The branch not taken has the derivative NaN, and the rule of the chain takes 0 times that.
    "a derivative that is NaN": lambda x: jnp.where(x[0] > 0, -jnp.sqrt(x[0]), -jnp.inf),
}


def assert_is_cut(x, log_factor):
    grid = np.linspace(1e-6, 8.0, 20_001)
    density = np.exp(-0.5 * grid**2 + np.asarray(jax.vmap(log_factor)(jnp.asarray(grid)[:, None])))
    density /= density.sum()
    mean = density @ grid
    sd = np.sqrt(density @ (grid - mean) ** 2)
    assert np.all(x > 0)
    # Of particles that were resampled, half count.
    assert abs(x.mean() - mean) < 5 * sd / np.sqrt(len(x) / 2)
    np.testing.assert_allclose(x.std(), sd, rtol=0.2)
    assert len(np.unique(x)) > 0.8 * len(x), "they descend from many particles"


@pytest.mark.parametrize("name", CUTS)
def test_a_factor_may_be_0_somewhere(name):
    draws = cut(CUTS[name])
    assert_is_cut(np.asarray(draws.positions), CUTS[name])
    assert draws.ess.min() > 150, "about a half when the factor sets in"
    assert draws.accept_prob[-10:].min() > 0.45


@pytest.mark.parametrize("name", CUTS)
def test_a_factor_of_a_product_may_be_0_somewhere(name):
    draws = product_with(CUTS[name]).sample(KEY, (500,))
    assert_is_cut(np.asarray(draws), CUTS[name])


@pytest.mark.parametrize("reweight", [True, False])
def test_particles_without_density_make_way_at_once(reweight):
    """They have no weight and accept no move, so that the step size would shrink by them."""
    draws = cut(lambda x: jnp.where(x[0] > -5, 0.0, -jnp.inf), reweight=reweight)
    assert np.all(draws.positions > -5)
    assert 250 < draws.ess[1] < 450, "too many left to resample, and too few to leave it"
    assert draws.ess[2] > 450


LOST = {
    "-inf everywhere": lambda x: jnp.where(x[0] > 1e6, 0.0, -jnp.inf),
    "NaN": lambda x: jnp.where(x[0] > 1, jnp.nan, 0.0),
    "+inf": lambda x: jnp.where(x[0] > 1, jnp.inf, 0.0),
}


@pytest.mark.parametrize("reweight", [True, False])
@pytest.mark.parametrize("name", LOST)
def test_weights_that_are_no_numbers_are_told(name, reweight):
    with pytest.raises(FloatingPointError, match=r"from noise level 1 of 30 on.*-inf at all"):
        cut(LOST[name], reweight=reweight)
    x = jax.jit(lambda: cut(LOST[name], reweight=reweight).positions)()
    assert np.isnan(x).all(), "under jit, where nothing can be raised"


@pytest.mark.parametrize("name", LOST)
def test_a_product_tells_weights_that_are_no_numbers(name):
    with pytest.raises(FloatingPointError, match=r"100.0% of the draws.*-inf at all particles"):
        product_with(LOST[name]).sample(KEY, (500,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1.0]}, "one number for each"),
        ({"weights": [1.0, -1.0]}, "leave no density where noise is largest"),
        ({"num_levels": 0}, "num_levels must be an integer"),
        ({"num_moves": 0}, "num_moves"),
        ({"num_particles": 0}, "num_particles"),
        ({"path_nodes": 1}, "path_nodes"),
    ],
)
def test_bad_arguments(options, message):
    networks = [lambda x, t: -x] * 2
    with pytest.raises(ValueError, match=message):
        composed_diffusion(jax.random.key(0), networks, VE_SDE, (2,), **options)
