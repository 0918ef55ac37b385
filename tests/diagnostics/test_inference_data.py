"""``to_arviz``: groups, names of axes, attributes; the same call under both generations."""

from __future__ import annotations

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.infer
import pytest
from jax import random

from numpyro_score.diagnostics import to_arviz
from numpyro_score.diagnostics._groups import has_group
from numpyro_score.distributions import DiffusionDistribution, EnergyDistribution
from numpyro_score.infer import MALA, MCMC, ReplicaExchange, TemperedSMC
from numpyro_score.sde import VE

NUM_CHAINS, NUM_SAMPLES, SIDE = 2, 40, 3
KEY = random.key(5)


def energy(x):
    return 0.5 * jnp.sum((x - 1) ** 2)


def model(y, counts, log_normalizer=None):
    image = numpyro.sample("image", EnergyDistribution(energy, (SIDE, SIDE)))
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    free = numpyro.sample("free", dist.Normal(3.0, 1.0))
    numpyro.deterministic("total", image.sum())
    numpyro.deterministic("twice", 2 * free)
    with numpyro.plate("school", len(y)):
        numpyro.sample("y", dist.Normal(image.mean(), scale), obs=y)
        numpyro.sample("from_free", dist.Normal(free, 1.0), obs=y)
    likelihood = EnergyDistribution(energy, (2,), log_normalizer=log_normalizer)
    numpyro.sample("learned", likelihood, obs=counts)


Y, COUNTS = jnp.array([1.0, 2.0, 4.0, 0.0]), jnp.array([0.5, 1.0])


def finished(cls, kernel, *args, num_chains=NUM_CHAINS, warmup=False, **kwargs):
    mcmc = cls(
        kernel,
        num_warmup=60,
        num_samples=NUM_SAMPLES,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    kept = None
    if warmup:
        mcmc.warmup(random.key(1), *args, collect_warmup=True, **kwargs)
        kept = mcmc.get_samples(group_by_chain=True)
    mcmc.run(random.key(0), *args, **kwargs)
    return mcmc, kept


@pytest.fixture(scope="module")
def run():
    mcmc, warmup = finished(numpyro.infer.MCMC, MALA(model), Y, COUNTS, warmup=True)
    data = to_arviz(mcmc, prior=30, posterior_predictive=10, key=KEY, warmup=warmup)
    return mcmc, warmup, data


def test_kernels_of_numpyro_are_taken_as_well():
    kernel = numpyro.infer.NUTS(lambda: numpyro.sample("x", dist.Normal(0.0, 1.0)))
    mcmc, _ = finished(numpyro.infer.MCMC, kernel)
    data = to_arviz(mcmc)
    attributes = data["posterior"].attrs
    assert attributes["kernel"] == "NUTS"
    assert attributes["metric"] == "diagonal"
    # d = 1 and s = -z, so that it is the square of the distance from the mean.
    z = np.asarray(mcmc.get_samples(group_by_chain=True)["x"], float)
    np.testing.assert_allclose(data["sample_stats"]["virial"].values, (z - z.mean()) * z, atol=1e-5)


def test_images_have_rows_and_columns_behind_plates(run):
    mcmc, _, data = run
    posterior = data["posterior"]
    assert posterior["image"].dims == ("chain", "draw", "row", "col")
    assert posterior["scale"].dims == ("chain", "draw")
    np.testing.assert_array_equal(posterior["row"].values, range(SIDE))
    np.testing.assert_array_equal(
        posterior["image"].values, mcmc.get_samples(group_by_chain=True)["image"]
    )
    assert data["observed_data"]["y"].dims == ("school",)


def test_prior_leaves_out_what_cannot_be_drawn_and_what_depends_on_it(run):
    _, _, data = run
    assert set(data["prior"].data_vars) == {"scale", "free", "twice"}
    assert set(data["prior_predictive"].data_vars) == {"from_free"}
    assert data["prior"]["free"].shape == (1, 30)
    assert data["prior_predictive"]["from_free"].dims == ("chain", "draw", "school")
    np.testing.assert_allclose(data["prior"]["twice"].values, 2 * data["prior"]["free"].values)
    assert abs(float(data["prior"]["free"].mean()) - 3) < 5 / np.sqrt(30)
    reasons = data["posterior"].attrs["prior_left_out"]
    assert "image: its distribution, EnergyDistribution, has no sampler" in reasons
    assert "total: depends on 'image'" in reasons
    assert "y: depends on 'image'" in reasons
    assert "learned: its distribution" in reasons


def test_replicated_data_belong_to_the_draws_that_they_name(run):
    mcmc, _, data = run
    replicated = data["posterior_predictive"]
    assert set(replicated.data_vars) == {"y", "from_free"}
    assert replicated["y"].shape == (NUM_CHAINS, 10, len(Y))
    taken = replicated["draw"].values
    assert taken[0] == 0
    assert taken[-1] == NUM_SAMPLES - 1
    free = mcmc.get_samples(group_by_chain=True)["free"][:, taken]
    noise = replicated["from_free"].values - np.asarray(free)[..., None]
    # Standard normal where each belongs to its draw.
    assert abs(noise.std() - 1) < 5 / np.sqrt(2 * noise.size)
    assert "learned" in data["posterior"].attrs["posterior_predictive_left_out"]


def test_a_likelihood_without_its_normalizer_is_left_out_with_the_reason(run):
    mcmc, _, data = run
    assert set(data["log_likelihood"].data_vars) == {"y", "from_free"}
    assert "learned: log p(y | θ) lacks" in data["posterior"].attrs["log_likelihood_left_out"]
    samples = mcmc.get_samples(group_by_chain=True)
    exact = dist.Normal(samples["free"][..., None], 1.0).log_prob(Y)
    np.testing.assert_allclose(data["log_likelihood"]["from_free"].values, exact, rtol=1e-4)


def test_a_normalized_one_is_kept():
    exact = float(jnp.log(2 * jnp.pi))

    def normalized(counts):
        numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample(
            "learned", EnergyDistribution(energy, (2,), log_normalizer=exact), obs=counts
        )

    data = to_arviz(finished(MCMC, MALA(normalized), COUNTS)[0])
    value = data["log_likelihood"]["learned"].values
    np.testing.assert_allclose(value, -energy(COUNTS) - exact, rtol=1e-5)
    assert "log_likelihood_left_out" not in data["posterior"].attrs


def test_scores_are_those_of_the_unconstrained_posterior(run):
    mcmc, _, data = run
    stats, draws = data["sample_stats"], mcmc.get_samples(group_by_chain=True)
    assert stats["score_norm"].shape == stats["virial"].shape == (NUM_CHAINS, NUM_SAMPLES)

    def log_density(z):
        scale = jnp.exp(z["scale"])
        values = dist.Normal(z["image"].mean(), scale).log_prob(Y).sum()
        values += dist.Normal(z["free"], 1.0).log_prob(Y).sum() - energy(z["image"])
        return (
            values
            + dist.Normal(3.0, 1.0).log_prob(z["free"])
            + dist.HalfNormal(2.0).log_prob(scale)
            + z["scale"]
        )

    z = {
        "image": draws["image"],
        "free": draws["free"],
        "scale": jnp.log(draws["scale"]),
    }
    gradient = jax.vmap(jax.vmap(jax.grad(log_density)))(z)
    flat = jnp.concatenate(
        [g.reshape(NUM_CHAINS, NUM_SAMPLES, -1) for g in jax.tree.leaves(gradient)], -1
    )
    np.testing.assert_allclose(
        stats["score_norm"].values, jnp.linalg.norm(flat, axis=-1), rtol=2e-3
    )


def test_attributes_name_the_kernel_its_tuning_and_versions(run):
    mcmc, _, data = run
    for group in ("posterior", "sample_stats"):
        attributes = data[group].attrs
        assert attributes["kernel"].startswith(type(mcmc.sampler).__name__)
        np.testing.assert_allclose(
            attributes["step_size"], mcmc.last_state.adapt_state.step_size, rtol=1e-6
        )
        assert attributes["metric"] == "diagonal"
        assert 0 < attributes["metric_least_variance"] <= attributes["metric_largest_variance"]
        assert attributes["numpyro_version"] == numpyro.__version__
        assert attributes["arviz_version"] == az.__version__


def test_warmup_draws_are_a_group_and_all_of_it_goes_through_a_file(run, tmp_path):
    _, warmup, data = run
    np.testing.assert_array_equal(data["warmup_posterior"]["image"].values, warmup["image"])
    data.to_netcdf(tmp_path / "run.nc")
    loaded = az.from_netcdf(tmp_path / "run.nc")
    for group in ("prior", "posterior_predictive", "warmup_posterior", "sample_stats"):
        for name, saved in data[group].data_vars.items():
            np.testing.assert_array_equal(loaded[group][name].values, saved.values)
    attributes = loaded["posterior"].attrs
    assert attributes["prior_left_out"] == data["posterior"].attrs["prior_left_out"]


def test_the_run_of_a_checkpoint_brings_its_warmup(tmp_path):
    mcmc = MCMC(
        MALA(lambda: numpyro.sample("x", dist.Normal(0.0, 1.0))),
        num_warmup=50,
        num_samples=20,
        progress_bar=False,
        checkpoint=tmp_path,
    )
    mcmc.warmup(KEY, collect_warmup=True)
    mcmc.run(KEY)
    data = to_arviz(mcmc)
    assert data["warmup_posterior"]["x"].shape == (1, 50)
    assert data["posterior"]["x"].shape == (1, 20)


def test_names_of_the_user_win(run):
    mcmc, _, _ = run
    data = to_arviz(
        mcmc, scores=False, dims={"image": ["y_axis", "col"]}, coords={"col": list("abc")}
    )
    assert data["posterior"]["image"].dims == ("chain", "draw", "y_axis", "col")
    assert list(data["posterior"]["col"].values) == list("abc")
    assert "virial" not in data["sample_stats"]


def test_images_of_two_sizes_do_not_share_an_axis():
    def two_sizes():
        numpyro.sample("small", dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(2))
        numpyro.sample("large", dist.Normal(jnp.zeros((4, 4, 3)), 1.0).to_event(3))

    posterior = to_arviz(finished(MCMC, MALA(two_sizes))[0])["posterior"]
    assert posterior["small"].dims[2:] == ("row", "col")
    assert posterior["large"].dims[2:] == ("channel", "large_row", "col")


@pytest.mark.statistics
def test_replicas_tell_their_swaps_and_particles_their_evidence(tmp_path):
    sde = VE(0.1, 5.0)

    def diffusion(y):
        score = lambda x, t: -x / (1 + sde.marginal_std(t) ** 2)  # noqa: E731
        x = numpyro.sample("x", DiffusionDistribution(score, sde, (2, 2), num_steps=20))
        numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=y)

    kernel = ReplicaExchange(MALA(diffusion), num_replicas=3, num_moves=1)
    data = to_arviz(finished(MCMC, kernel, 1.0)[0])
    assert 0 < data["posterior"].attrs["least_swap_accept_prob"].min() <= 1
    assert data["posterior"].attrs["round_trips"].shape == (NUM_CHAINS,)
    assert data["posterior"]["x"].dims[2:] == ("row", "col")

    def plain(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    smc = TemperedSMC(plain, 50, num_chains=2, progress_bar=False)
    with pytest.raises(RuntimeError, match="run must be called first"):
        to_arviz(smc)
    smc.run(KEY, 0.5)
    data = to_arviz(smc, prior=20, posterior_predictive=5, key=KEY)
    data.to_netcdf(tmp_path / "smc.nc")
    attributes = az.from_netcdf(tmp_path / "smc.nc")["posterior"].attrs
    assert attributes["kernel"].startswith("TemperedSMC(")
    assert attributes["log_evidence"] == pytest.approx(smc.log_evidence)
    assert data["sample_stats"]["virial"].shape == (2, 50)
    assert data["prior_predictive"]["y"].shape == (1, 20)


def test_given_draws_are_taken(run):
    mcmc, _, _ = run
    flat = jnp.arange(NUM_CHAINS * NUM_SAMPLES * 4.0).reshape(-1, 4)
    data = to_arviz(
        mcmc, scores=False, prior={"scale": jnp.ones(7)}, posterior_predictive={"y": flat}
    )
    assert data["prior"]["scale"].shape == (1, 7)
    assert not has_group(data, "prior_predictive")
    np.testing.assert_array_equal(data["posterior_predictive"]["y"].values.reshape(-1, 4), flat)


def test_a_run_that_has_only_been_warmed_up_is_refused():
    warm = MCMC(MALA(potential_fn=energy), num_warmup=10, num_samples=10, progress_bar=False)
    warm.warmup(KEY, init_params=jnp.zeros(2))
    with pytest.raises(RuntimeError, match="has been warmed up"):
        to_arviz(warm)


def test_refusals(run):
    mcmc, _, _ = run
    new = numpyro.infer.MCMC(MALA(model), num_warmup=10, num_samples=10, progress_bar=False)
    with pytest.raises(RuntimeError, match="this MCMC has not run"):
        to_arviz(new)
    with pytest.raises(TypeError, match=r"expected a numpyro\.infer\.MCMC"):
        to_arviz({"x": jnp.ones(3)})
    with pytest.raises(ValueError, match="prior=10 asks for draws to be made, which needs key"):
        to_arviz(mcmc, prior=10)
    with pytest.raises(ValueError, match=r"must have the shape \(80, \*site\)"):
        to_arviz(mcmc, posterior_predictive={"y": jnp.ones((7, 4))})
    with pytest.raises(ValueError, match=r"axes \(chain, draw, ...\) with 2 chains"):
        to_arviz(mcmc, warmup={"free": jnp.ones(7)})
