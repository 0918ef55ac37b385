import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from numpyro_score import infer
from numpyro_score.distributions import DiffusionDistribution, EnergyDistribution
from numpyro_score.infer import MALA, MCMC, ReplicaExchange
from numpyro_score.infer._levels import LevelledPotential
from numpyro_score.sde import VE, VP
from tests.mixtures import Mixture, ncsn_toy

SDE = VE(0.02, 15.0)
TOY = ncsn_toy()


def toy_model(network="energy"):
    prior = DiffusionDistribution(getattr(TOY, network)(SDE), SDE, (2,))
    return lambda: numpyro.sample("x", prior)


def run(kernel, *args, num_chains=16, num_samples=500, num_warmup=500, seed=0, **fields):
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed), *args, **fields)
    return mcmc


def weight_error(mcmc, mixture, component, exact):
    """Return by how many standard errors the weight of a mode is off, and the standard error."""
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    inside = (mixture.nearest(x) == component).astype(float)
    error = np.sqrt(exact * (1 - exact) / effective_sample_size(inside))
    return (inside.mean() - exact) / error, error


# -- the weights of modes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "options"),
    [("energy", {}), ("score", {"path": "local"})],
)
def test_the_toy_of_song_and_ermon(network, options):
    kernel = ReplicaExchange(MALA(toy_model(network), **options), num_replicas=8)
    mcmc = run(kernel, extra_fields=("mean_swap_accept_prob",))
    off, error = weight_error(mcmc, TOY, 1, 0.8)
    assert error < 0.02
    assert abs(off) < 4
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    # Each mode is a unit normal, with a little noise.
    high = x[TOY.nearest(x) == 1]
    np.testing.assert_allclose(high.mean(0), 5.0, atol=0.1)
    np.testing.assert_allclose(high.std(0), 1.0, atol=0.1)
    assert split_gelman_rubin(x).max() < 1.05
    fields = mcmc.get_extra_fields(group_by_chain=True)
    assert fields["swap_accept_prob"].shape == (16, 500, 7)
    assert fields["journeys.round_trips"][:, -1].min() > 5
    # Levels were laid so that swaps are even.
    rates = np.asarray(fields["mean_swap_accept_prob"][:, -1].mean(0))
    assert rates.max() - rates.min() < 0.25


RIGHT_RATIO = LevelledPotential.log_ratio
WRONG_RATIOS = {
    "always taken": lambda self, z, lower, upper: jnp.zeros(()),
    "half of it": lambda self, z, lower, upper: 0.5 * RIGHT_RATIO(self, z, lower, upper),
    "twice": lambda self, z, lower, upper: 2.0 * RIGHT_RATIO(self, z, lower, upper),
}


def off_under_data(num_chains):
    """Off by how many standard errors, where data weigh modes anew and more so with noise."""
    data = jnp.array([[1.0, 1.0]]), jnp.array([-2.0]), 4.0
    posterior, _ = TOY.posterior(*map(np.asarray, data[:2]), data[2])
    assert posterior.weights[1] < 0.4  # 0.8 before the data
    kernel = ReplicaExchange(MALA(TOY.model(SDE)), num_replicas=8, num_moves=2)
    return weight_error(
        run(kernel, *data, num_chains=num_chains), posterior, 1, posterior.weights[1]
    )


def test_weights_that_data_change():
    off, error = off_under_data(16)
    assert error < 0.03
    assert abs(off) < 4


@pytest.mark.parametrize("bug", WRONG_RATIOS)
def test_catches_a_wrong_ratio(bug, monkeypatch):
    monkeypatch.setattr(LevelledPotential, "log_ratio", WRONG_RATIOS[bug])
    off, _ = off_under_data(64)
    assert abs(off) > 6  # where the right one has 4 at most


def test_the_weights_of_an_energy_at_little_noise_do_not_count():
    """A learned energy knows no weights where noise is little: planted, a tilt of 5 nats there."""
    energy = TOY.energy(SDE)

    def tilted(x, t):
        side = jax.nn.sigmoid(4 * x.sum())
        return energy(x, t) + 5.0 * side * jnp.exp(-(SDE.marginal_std(t) ** 2))

    prior = DiffusionDistribution(tilted, SDE, (2,))
    kernel = ReplicaExchange(MALA(lambda: numpyro.sample("x", prior)), num_replicas=8)
    off, _ = weight_error(run(kernel), TOY, 1, 0.8)
    assert abs(off) < 4


def test_other_latents_and_an_unknown_noise():
    """A diffusion prior, an unknown noise level, and data that tell the modes apart a little."""
    mixture = Mixture(
        np.array([0.5, 0.5]), np.array([[-4.0], [4.0]]), np.array([[[1.0]], [[0.25]]])
    )
    sde = VP()
    prior = DiffusionDistribution(mixture.energy(sde), sde, (1,))

    def model(y):
        noise = numpyro.sample("noise", dist.LogNormal(1.5, 0.3))
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)

    grid = jnp.linspace(-12, 12, 2001)
    y = jnp.array([1.5])

    def evidence(noise):
        joint = -jax.vmap(mixture.energy(sde), (0, None))(grid[:, None], sde.t_min)
        joint = jnp.exp(joint + dist.Normal(grid, noise).log_prob(y[0]))
        return jnp.trapezoid(joint * (grid > 0), grid), jnp.trapezoid(joint, grid)

    noises = jnp.linspace(0.8, 20.0, 400)
    right, both = jax.vmap(evidence)(noises)
    prior_of_noise = jnp.exp(dist.LogNormal(1.5, 0.3).log_prob(noises))
    exact = float(jnp.sum(right * prior_of_noise) / jnp.sum(both * prior_of_noise))
    exact_noise = float(jnp.sum(noises * both * prior_of_noise) / jnp.sum(both * prior_of_noise))
    mcmc = run(ReplicaExchange(MALA(model), (0.05, 12.0), num_replicas=8), y)
    off, error = weight_error(mcmc, mixture, 1, exact)
    assert error < 0.03
    assert abs(off) < 4
    noise = np.asarray(mcmc.get_samples(group_by_chain=True)["noise"])
    sd = noise.std() / np.sqrt(effective_sample_size(noise))
    assert abs(noise.mean() - exact_noise) < 4 * sd


def two_modes_of_a_likelihood(y):
    x = numpyro.sample("x", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
    numpyro.sample("y", dist.Normal(jnp.abs(x[:1] + 0.1), 0.2).to_event(1), obs=y)


@pytest.mark.parametrize("kernel", [infer.Barker, infer.GHMC, infer.NUTS, infer.AdjustedMCLMC])
def test_temperatures_alone_and_any_kernel(kernel):
    kernel = ReplicaExchange(
        kernel(two_modes_of_a_likelihood), inverse_temperatures=(1.0, 0.004), num_replicas=5
    )
    num_samples = 200 if "NUTS" in repr(kernel) else 400
    mcmc = run(kernel, jnp.array([3.0]), num_chains=8, num_samples=num_samples, num_warmup=300)
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])[..., 0]
    exact = 1 / (1 + np.exp((2.9**2 - 3.1**2) / 18))  # prior densities at the two modes
    right = (x > 0).astype(float)
    error = np.sqrt(0.25 / effective_sample_size(right))
    assert error < 0.1
    assert abs(right.mean() - exact) < 4 * error


# -- in an MCMC --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short():
    return ReplicaExchange(MALA(toy_model()), num_replicas=3, num_moves=2)


def test_one_chain_and_chains_in_sequence(short):
    options = {"num_warmup": 20, "num_samples": 10, "progress_bar": False}
    mcmc = MCMC(short, **options)
    mcmc.run(jax.random.key(0))
    assert mcmc.get_samples()["x"].shape == (10, 2)
    assert mcmc.get_extra_fields()["swap_accept_prob"].shape == (10, 2)
    in_sequence = MCMC(short, num_chains=2, chain_method="sequential", **options)
    in_sequence.run(jax.random.key(0))
    assert in_sequence.get_samples(group_by_chain=True)["x"].shape == (2, 10, 2)
    theirs = numpyro.infer.MCMC(short, **options)
    theirs.run(jax.random.key(0))
    np.testing.assert_allclose(theirs.get_samples()["x"], mcmc.get_samples()["x"], rtol=1e-4)


def test_starts_resuming_and_pooled_adaptation():
    kernel = ReplicaExchange(MALA(toy_model(), adaptation="pooled"), num_replicas=3, num_moves=2)
    starts = {"x": jnp.arange(8.0).reshape(4, 2)}
    mcmc = run(kernel, num_chains=4, num_samples=10, num_warmup=20, init_params=starts)
    first = mcmc.get_samples()["x"]
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.post_warmup_state.rng_key)
    assert np.isfinite(first).all()
    assert not np.allclose(first, mcmc.get_samples()["x"])
    with pytest.raises(ValueError, match="pooled"):
        run(kernel, num_chains=1)


def test_a_run_that_goes_on_follows_its_new_key():
    """The moves too: they have keys of their own, one for each replica."""
    kernel = ReplicaExchange(MALA(toy_model()), num_replicas=3, num_moves=2)
    start = kernel.init(jax.random.key(0), 0)
    step = jax.jit(lambda key: kernel.sample(start._replace(rng_key=key), (), {}).replicas.z["x"])
    one, other = jax.random.split(jax.random.key(1))
    np.testing.assert_array_equal(step(one), step(one))
    both = np.concatenate([step(one), step(other)])
    assert len(np.unique(both, axis=0)) == 6


def test_says_what_it_is(short):
    assert repr(short).startswith("ReplicaExchange(<lambda>, 3 replicas, MALA(")
    assert "biased" in repr(ReplicaExchange(infer.ULA(toy_model())))
    assert "replica_exchange" in infer.available_kernels()


def test_several_diffusion_sites_plates_and_discrete_data():
    gaussian = Mixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    prior = DiffusionDistribution(gaussian.energy(SDE), SDE, (2,))
    frozen = EnergyDistribution(lambda x: 0.5 * jnp.sum(x**2), (2,))

    def model(counts):
        with numpyro.plate("rows", 3):
            a = numpyro.sample("a", prior)
        b = numpyro.sample("b", DiffusionDistribution(gaussian.score(VP()), VP(), (2,)))
        c = numpyro.sample("c", frozen)
        numpyro.sample("k", dist.Poisson(jnp.exp(a.sum(1) + b.sum() + c.sum())), obs=counts)

    kernel = ReplicaExchange(MALA(model), (0.1, 3.0), num_replicas=4, num_nodes=8)
    mcmc = run(kernel, jnp.array([0, 2, 5]), num_chains=4, num_samples=50, num_warmup=50)
    draws = mcmc.get_samples()
    assert {name: x.shape[1:] for name, x in draws.items()} == {"a": (3, 2), "b": (2,), "c": (2,)}
    assert all(np.isfinite(x).all() for x in draws.values())
