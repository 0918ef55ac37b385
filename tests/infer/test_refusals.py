"""Bad input of a kernel: what was expected, what came, and how to mend it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

from numpyro_score.distributions import EnergyDistribution
from tests.cases import KERNELS
from tests.infer.model import CASES, Y, make_mcmc, model


@CASES
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0.0}, "step_size must be a finite number above 0, got 0.0"),
        ({"step_size": float("nan")}, "step_size must be"),
        ({"target_accept_prob": 1.0}, "target_accept_prob must lie between 0 and 1"),
        ({"inverse_mass_matrix": -np.ones(2)}, "must be finite and above 0"),
        ({"inverse_mass_matrix": np.ones((2, 3))}, r"got the shape \(2, 3\)"),
        (
            {"inverse_mass_matrix": np.array([[1.0, 2.0], [2.0, 1.0]])},
            "positive definite|vector of variances",
        ),
        ({"potential_fn": lambda z: z}, "Only one of `model` or `potential_fn`"),
    ],
)
def test_arguments_out_of_range(name, options, message):
    if name == "mclmc" and "target_accept_prob" in options:
        options, message = {"desired_energy_var": -1.0}, "desired_energy_var must be"
    with pytest.raises(ValueError, match=message):
        KERNELS[name].make(model, **options)


@CASES
def test_metric_of_another_size(name):
    kernel = KERNELS[name].make(model, inverse_mass_matrix=np.ones(3))
    mcmc = MCMC(kernel, num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(ValueError, match="for 3 parameters, but the model has 4"):
        mcmc.run(random.key(0), Y)


@CASES
def test_start_that_is_not_finite_names_the_site(name):
    def broken_model():
        numpyro.sample("fine", dist.Normal(0.0, 1.0))
        numpyro.sample("broken", EnergyDistribution(lambda x: jnp.nan * jnp.sum(x), (2,)))

    mcmc = make_mcmc(name, model=broken_model)
    with pytest.raises(RuntimeError, match="log density of site 'broken' is not finite"):
        mcmc.run(random.key(0))


@CASES
def test_gradient_that_is_not_finite_names_the_site(name):
    def broken_model():
        numpyro.sample("fine", dist.Normal(0.0, 1.0))
        numpyro.sample("broken", EnergyDistribution(lambda x: jnp.sqrt(0.0 * x[0]), (1,)))

    mcmc = make_mcmc(name, model=broken_model)
    with pytest.raises(RuntimeError, match="gradient of site 'broken' is not finite"):
        mcmc.run(random.key(0))


@CASES
@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        ({"loc": 0.0, "scale": 0.0}, ValueError, r"missing: \['x'\]"),
        ({"loc": 0.0, "scale": 0.0, "x": jnp.zeros(3)}, ValueError, r"\['x'\] must have the shape"),
        (jnp.zeros(4), TypeError, "must be a dict"),
        ({"loc": 0.0, "scale": 1e3, "x": jnp.zeros(2)}, RuntimeError, "no finite potential"),
    ],
)
@pytest.mark.filterwarnings("ignore:Out-of-support values")  # NumPyro's, of the same start
def test_bad_starts(name, start, error, message):
    with pytest.raises(error, match=message):
        make_mcmc(name).run(random.key(0), Y, init_params=start)
