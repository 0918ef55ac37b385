"""Attributes that say which kernel the draws came from, and whether it is biased."""

from __future__ import annotations

import arviz as az
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import HMC, MCMC, BarkerMH, DiscreteGibbs, Gibbs

from numpyro_score.diagnostics import from_numpyro, to_arviz
from numpyro_score.infer import MALA, MCLMC, ULA

NUM_CHAINS = 2


def run(kernel_cls, **options):
    kernel = kernel_cls(potential_fn=lambda z: 0.5 * jnp.sum(z**2), **options)
    mcmc = MCMC(
        kernel,
        num_warmup=30,
        num_samples=20,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), init_params=jnp.zeros((NUM_CHAINS, 3)))
    return mcmc


@pytest.mark.parametrize("kernel_cls", [ULA, MCLMC])
def test_a_biased_kernel_is_named_with_its_statistic_also_in_a_file(kernel_cls, tmp_path):
    mcmc = run(kernel_cls)
    from_numpyro(mcmc).to_netcdf(tmp_path / "run.nc")
    data = az.from_netcdf(tmp_path / "run.nc")
    for group in ("posterior", "sample_stats"):
        attributes = data[group].attrs
        assert attributes["kernel"] == repr(mcmc.sampler)
        assert attributes["biased"] == "no Metropolis test"
        np.testing.assert_allclose(
            attributes["energy_variance"], mcmc.last_state.energy_variance, rtol=1e-6
        )


@pytest.mark.parametrize("kernel_cls", [MALA, HMC], ids=["ours", "numpyro"])
def test_an_exact_kernel_is_named_and_not_called_biased(kernel_cls):
    attributes = from_numpyro(run(kernel_cls))["posterior"].attrs
    assert attributes["kernel"].startswith(kernel_cls.__name__)
    assert " at 0x" not in attributes["kernel"]
    assert "biased" not in attributes


def test_a_kernel_of_which_nothing_is_collected_has_a_kernel_all_the_same():
    def model():
        numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("k", dist.Bernoulli(0.4))

    mcmc = MCMC(
        Gibbs([(DiscreteGibbs(model), ["k"]), (MALA(model), ["x"])]),
        num_warmup=5,
        num_samples=5,
        progress_bar=False,
    )
    mcmc.run(random.key(0))
    for convert in (from_numpyro, to_arviz):
        assert convert(mcmc)["posterior"].attrs["kernel"].startswith("Gibbs")


def test_scores_are_the_only_statistics_of_a_kernel_without():
    kernel = BarkerMH(lambda: numpyro.sample("x", dist.Normal(0.0, 1.0)))
    mcmc = MCMC(kernel, num_warmup=5, num_samples=5, progress_bar=False)
    mcmc.run(random.key(0))
    statistics = to_arviz(mcmc)["sample_stats"]
    assert set(statistics.data_vars) == {"score_norm", "virial"}
    assert statistics.attrs["kernel"].startswith("BarkerMH")


def test_arguments_are_those_of_arviz():
    data = from_numpyro(run(MALA), dims={"Param:0": ["axis"]})
    assert "axis" in data["posterior"]["Param:0"].dims
