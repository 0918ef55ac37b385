"""What ArviZ makes of a run, by its own ``from_numpyro``: 0.23 (InferenceData), 1.x (DataTree)."""

from __future__ import annotations

import arviz as az
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

from numpyro_score.distributions import EnergyDistribution
from numpyro_score.infer import MALA, ULA, MetropolisState, ULAState
from tests.cases import SHORT_RUN

Y = np.array([1.0, 2.0, 4.0])
NUM_CHAINS, NUM_SAMPLES = 2, 50
FIELDS = {
    MALA: ("accept_prob", "potential_energy", "adapt_state.step_size"),
    ULA: ("energy_error", "potential_energy", "adapt_state.step_size"),
}
STATISTICS = {
    MALA: {"acceptance_rate", "lp", "step_size", "diverging"},
    ULA: {"energy_error", "lp", "step_size", "diverging"},
}


def run(kernel_cls, sampler=None):
    prior = EnergyDistribution(lambda x: 0.5 * jnp.sum((x - 1) ** 2), (2,), sampler=sampler)

    def model(y):
        x = numpyro.sample("x", prior)
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        with numpyro.plate("school", len(y)):
            effect = numpyro.sample("effect", dist.Normal(x.sum(), scale))
            numpyro.sample("y", dist.Normal(effect, 1.0), obs=y)

    mcmc = MCMC(
        kernel_cls(model),
        num_warmup=50,
        num_samples=NUM_SAMPLES,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), Y, extra_fields=FIELDS[kernel_cls])
    return mcmc


@pytest.fixture(scope="module", params=[MALA, ULA], ids=lambda cls: cls.__name__)
def finished(request):
    """A run whose prior cannot be sampled: ArviZ has to fall back to a uniform start."""
    mcmc = run(request.param)
    return mcmc, az.from_numpyro(mcmc), request.param


def test_posterior_has_named_dimensions_and_the_draws_of_each_chain(finished):
    mcmc, data, _ = finished
    posterior, draws = data["posterior"], mcmc.get_samples(group_by_chain=True)
    assert set(posterior.data_vars) == {"x", "scale", "effect"}
    assert posterior["effect"].dims == ("chain", "draw", "school")
    assert posterior["scale"].dims == ("chain", "draw")
    assert posterior["x"].shape == (NUM_CHAINS, NUM_SAMPLES, 2)
    for name in draws:  # as grouped by us: a wrong reshape would mix the chains
        np.testing.assert_array_equal(posterior[name].values, draws[name])
    np.testing.assert_allclose(data["observed_data"]["y"].values, Y)


def test_statistics_have_the_names_that_arviz_knows(finished):
    mcmc, data, kernel_cls = finished
    statistics, fields = data["sample_stats"], mcmc.get_extra_fields(group_by_chain=True)
    assert set(statistics.data_vars) == STATISTICS[kernel_cls]  # no tree_depth, no n_steps
    assert all(s.shape == (NUM_CHAINS, NUM_SAMPLES) for s in statistics.data_vars.values())
    np.testing.assert_array_equal(statistics["lp"].values, -fields["potential_energy"])
    step_size = mcmc.last_state.adapt_state.step_size
    np.testing.assert_array_equal(statistics["step_size"].values[:, -1], step_size)


def test_summary_has_a_finite_row_per_parameter(finished):
    _, data, _ = finished
    table = az.summary(data)
    assert {"x[0]", "x[1]", "scale", "effect[0]"} <= set(table.index)
    assert len(table) == 6
    assert np.isfinite(table[["mean", "sd"]].astype(float).to_numpy()).all()


def test_netcdf_brings_back_what_was_saved(finished, tmp_path):
    _, data, _ = finished
    data.to_netcdf(tmp_path / "run.nc")
    loaded = az.from_netcdf(tmp_path / "run.nc")
    for group in ("posterior", "sample_stats", "observed_data"):
        for name, saved in data[group].data_vars.items():
            np.testing.assert_array_equal(loaded[group][name].values, saved.values)
            assert loaded[group][name].dims == saved.dims


def test_a_prior_with_a_sampler_works_as_well():
    posterior = az.from_numpyro(run(MALA, sampler=SHORT_RUN))["posterior"]
    assert posterior["x"].shape == (NUM_CHAINS, NUM_SAMPLES, 2)


def test_ula_has_no_acceptance_to_collect():
    """A constant 1 would read as a perfect acceptance rate."""
    assert "accept_prob" not in ULAState._fields
    assert "accept_prob" in MetropolisState._fields
