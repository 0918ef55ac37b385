"""The local path under ``MCMC``: chains, data, blocks, resumption, and what it refuses."""

from __future__ import annotations

import pickle

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC, Gibbs

from numpyro_score.distributions import EnergyDistribution, ScoreDistribution
from numpyro_score.infer import (
    MALA,
    NUTS,
    DoublyIntractableError,
    ModelError,
    kernel_from_algorithm,
)
from numpyro_score.infer._curl import relative_curl
from tests.infer.test_contracts import same
from tests.statistics import Moments, assert_recovers

Y = jnp.array([1.0, 2.0, 4.0])


def model(shift, y):
    """A plate of conditional score sites, beside sites with a density."""
    with numpyro.plate("rows", 3):
        condition = shift + jnp.arange(6.0).reshape(3, 2)
        x = numpyro.sample("x", ScoreDistribution(lambda x, c: c - x, (2,), condition=condition))
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    numpyro.sample("y", dist.Normal(x.mean(-1), scale).to_event(1), obs=y)


def make_mcmc(*, num_chains=1, chain_method="vectorized", kernel=None, **options):
    options = {"num_warmup": 60, "num_samples": 40, "progress_bar": False} | options
    kernel = MALA(model, path="local") if kernel is None else kernel
    return MCMC(kernel, num_chains=num_chains, chain_method=chain_method, **options)


@pytest.mark.parametrize(("chain_method", "num_chains"), [("vectorized", 3), (jax.vmap, 2)])
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")  # NumPyro's, under vmap
def test_chain_methods_and_starts(chain_method, num_chains):
    lead = (num_chains,) if num_chains > 1 else ()
    start = {"x": jnp.full((*lead, 3, 2), 2.0), "scale": jnp.zeros(lead)}
    mcmc = make_mcmc(num_chains=num_chains, chain_method=chain_method)
    mcmc.run(random.key(0), 0.0, Y, init_params=start, extra_fields=("potential_energy",))
    assert mcmc.get_samples(group_by_chain=True)["x"].shape == (num_chains, 40, 3, 2)
    assert len(np.unique(mcmc.get_samples()["x"][..., 0, 0])) > 10 * num_chains
    assert np.isfinite(mcmc.get_extra_fields()["potential_energy"]).all()


def test_jit_model_args_follows_the_second_condition():
    mcmc = make_mcmc(num_chains=2, jit_model_args=True, num_warmup=300, num_samples=300)
    for shift in (0.0, 50.0):
        mcmc.run(random.key(0), shift, Y + shift)
        assert abs(mcmc.get_samples()["x"][..., 0, 0].mean() - shift) < 1.0


def test_resumed_with_and_without_a_pickle_goes_on_where_it_stopped():
    kernel = MALA(model, path="local", dense_mass=True)
    half = make_mcmc(kernel=kernel, num_chains=2)
    half.run(random.key(0), 0.0, Y)
    half.post_warmup_state = half.last_state
    thawed = pickle.loads(pickle.dumps(half))
    for resumed in (half, thawed):
        resumed.run(resumed.post_warmup_state.rng_key, 0.0, Y)
    assert same(half.get_samples(), thawed.get_samples()), "same program, same bits"


def test_a_state_without_a_local_path_holds_nothing_for_it():
    kernel = MALA(model)
    assert kernel.init(random.key(0), 10, None, (0.0, Y), {}).site_scores == {}


def noise_model():
    """A learned noise: the score site moves where a latent site of either block does."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    noise = ScoreDistribution(lambda u: -u, (2,))
    shift = dist.transforms.AffineTransform(a + b, 0.5)
    numpyro.sample("y", dist.TransformedDistribution(noise, shift), obs=jnp.array([1.0, 2.0]))


def test_blocks_of_gibbs_refresh_where_the_score_sites_are():
    """A Gaussian posterior with a correlation of -8/9; wrong if a block keeps an old score."""
    blocks = [(MALA(noise_model, path="local", path_nodes=2), [site]) for site in ("a", "b")]
    mcmc = MCMC(Gibbs(blocks), num_warmup=1000, num_samples=30_000, progress_bar=False)
    mcmc.run(random.key(0))
    draws = np.stack([mcmc.get_samples(group_by_chain=True)[site] for site in ("a", "b")], -1)
    precision = np.eye(2) + 8 * np.ones((2, 2))
    covariance = np.linalg.inv(precision)
    assert_recovers(draws, Moments(covariance @ np.full(2, 12.0), np.sqrt(np.diag(covariance))))


# -- refusals --------------------------------------------------------------------------------------


def refuses(kernel_model, error, message):
    with pytest.raises(error, match=message):
        make_mcmc(kernel=MALA(kernel_model, path="local")).run(random.key(0))


def linear(x, *_):
    return -x


def test_arguments():
    with pytest.raises(ValueError, match='path must be "anchored" or "local"'):
        MALA(model, path="straight")
    with pytest.raises(ValueError, match="path_nodes must be an integer of at least 2, got 1"):
        MALA(model, path="local", path_nodes=1)
    with pytest.raises(ValueError, match=r'path_nodes belongs to path="local"'):
        MALA(model, path_nodes=3)
    algorithm = kernel_from_algorithm("Mine", blackjax.mala)
    with pytest.raises(ValueError, match='Mine has no path="local"'):
        algorithm(model, path="local")
    with pytest.raises(TypeError, match="path"):
        NUTS(model, path="local")


def test_models_without_a_score_site():
    def plain_model():
        numpyro.sample("x", EnergyDistribution(lambda x: 0.5 * jnp.sum(x**2), (2,)))

    refuses(plain_model, ValueError, "no site needs it")
    kernel = MALA(potential_fn=lambda z: 0.5 * z**2, path="local")
    with pytest.raises(ValueError, match="was given a potential_fn"):
        make_mcmc(kernel=kernel).run(random.key(0), init_params=jnp.zeros(()))


def test_a_condition_that_depends_on_a_latent_site():
    def conditional_model(log_normalizer=None):
        c = numpyro.sample("c", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        site = ScoreDistribution(
            lambda x, c: c - x,
            (2,),
            condition=c,
            anchor=jnp.zeros(2),
            log_normalizer=log_normalizer,
        )
        numpyro.sample("x", site)

    refuses(conditional_model, DoublyIntractableError, "normalizer Z changes")
    given = lambda: conditional_model(log_normalizer=0.0)  # noqa: E731
    refuses(given, ModelError, "its condition depends on the latent site 'c'.*anchored")


def test_a_scale_that_depends_on_a_latent_site():
    def scaled_model():
        power = numpyro.sample("power", dist.HalfNormal(1.0))
        with numpyro.handlers.scale(scale=power):
            numpyro.sample("x", ScoreDistribution(linear, (2,), log_normalizer=1.0))

    refuses(scaled_model, ModelError, "its mask or scale depends on the latent site 'power'")


def test_distributions_that_are_not_linear_in_the_log_density():
    def mixture_model():
        component = ScoreDistribution(
            lambda x, c: c - x, (2,), condition=jnp.zeros((2, 2)), log_normalizer=0.0
        )
        weights = dist.Categorical(jnp.array([0.5, 0.5]))
        numpyro.sample("x", dist.MixtureSameFamily(weights, component))

    refuses(mixture_model, ModelError, "inside a MixtureSameFamily")


@pytest.mark.parametrize(("size", "tolerance"), [(5, 1e-4), (200, 0.05)])
def test_relative_curl_in_few_and_in_many_dimensions(size, tolerance):
    """The Jacobian of a linear field is its matrix; above 32 dimensions it is only probed."""
    rng = np.random.default_rng(0)
    field = -np.eye(size) + 0.3 * rng.normal(size=(size, size)) / np.sqrt(size)
    expected = np.linalg.norm(field - field.T) / np.linalg.norm(field + field.T)
    field = jnp.asarray(field, float)
    condition = jnp.arange(3.0)[:, None]
    distribution = ScoreDistribution(lambda x, c: field @ x + c, (size,), condition=condition)
    np.testing.assert_allclose(relative_curl(distribution), expected, rtol=tolerance)
