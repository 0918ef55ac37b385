"""Bad input of the kernels with minibatches: an error before sampling starts, that says the way."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random

from numpyro_score.distributions import EnergyDistribution
from numpyro_score.infer import DoublyIntractableError
from tests.infer.minibatch_model import (
    BATCH,
    CASES,
    KERNELS,
    NUM_ROWS,
    Y,
    gaussian_model,
    make_mcmc,
    model,
)


@CASES
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0.0}, "step_size must be a finite number above 0, got 0.0"),
        ({"step_size": float("inf")}, "step_size must be a finite number above 0, got inf"),
        ({"step_size": lambda i: 0.0 * i}, r"step_size\(0\), the first of the schedule, must be"),
        ({"step_size": lambda i: jnp.ones(2)}, "must be one number"),
        ({"control_variate": "mean"}, "control_variate must be None"),
        ({"potential_fn": lambda z: z}, "needs a model, whose plates it subsamples"),
    ],
)
def test_arguments_out_of_range(name, options, message):
    with pytest.raises(ValueError, match=message):
        KERNELS[name].make(model, **options)


@pytest.mark.parametrize("name", ["sghmc", "sgnht"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a finite number above 0"),
        ({"beta": -1.0}, "beta must be a finite number of at least 0"),
        ({"alpha": 1.0, "beta": 50.0}, "step_size \\* beta must not exceed 2 \\* alpha"),
    ],
)
def test_friction_out_of_range(name, options, message):
    with pytest.raises(ValueError, match=message):
        KERNELS[name].make(model, **options)


def test_no_integration_steps():
    with pytest.raises(ValueError, match="num_integration_steps must be an integer of at least 1"):
        KERNELS["sghmc"].make(model, num_integration_steps=0)


def whole_data():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", NUM_ROWS):
        numpyro.sample("y", dist.Normal(x, 1.0), obs=Y)


def local_latent():
    with numpyro.plate("rows", NUM_ROWS, subsample_size=BATCH):
        numpyro.sample("local", dist.Normal(0.0, 1.0))


def local_deterministic():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", NUM_ROWS, subsample_size=BATCH) as rows:
        numpyro.deterministic("local", x * rows)


def too_many_rows():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 3, subsample_size=4) as rows:
        numpyro.sample("y", dist.Normal(x, 1.0), obs=Y[rows])


def all_rows_for_one():
    """With a minibatch of one row, all of them would broadcast in silence."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", NUM_ROWS, subsample_size=1):
        numpyro.sample("y", dist.Normal(x, 1.0), obs=Y)


def numpy_rows():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", NUM_ROWS, subsample_size=BATCH) as rows:
        numpyro.sample("y", dist.Normal(x, 1.0), obs=np.asarray(Y)[rows])


def discrete():
    numpyro.sample("k", dist.Bernoulli(0.5))
    with numpyro.plate("rows", NUM_ROWS, subsample_size=BATCH):
        numpyro.factor("f", jnp.zeros(()))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (whole_data, "SGLD without a subsampled plate"),
        (local_latent, "latent site 'local' lies in the subsampled plate 'rows'"),
        (local_deterministic, "deterministic site 'local' lies in the subsampled plate 'rows'"),
        (too_many_rows, "Plate 'rows' cannot take 4 rows out of 3"),
        (all_rows_for_one, "observed site 'y' has 12 rows in the plate 'rows', which takes 1"),
        (numpy_rows, r"jnp\.asarray\(y\)\[rows\]"),
        (discrete, r"Latent sites \['k'\] are discrete"),
    ],
)
def test_models_that_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        make_mcmc("sgld", model=bad).run(random.key(0))


def test_doubly_intractable_model_is_refused():
    def doubly():
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        energy = lambda x, c: 0.5 * jnp.sum((x / c) ** 2)  # noqa: E731
        with numpyro.plate("rows", NUM_ROWS, subsample_size=BATCH) as rows:
            d = EnergyDistribution(energy, (1,), condition=scale[None])
            numpyro.sample("y", d, obs=Y[rows, None])

    with pytest.raises(DoublyIntractableError, match="Site 'y'"):
        make_mcmc("sgld", model=doubly).run(random.key(0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loc": np.zeros(2)}, r"missing: \['scale'\]"),
        ({"loc": np.zeros(2), "scale": 1.0, "typo": 1.0}, r"unknown: \['typo'\]"),
        ({"loc": np.zeros(3), "scale": 1.0}, r"control_variate\['loc'\] has the shape \(3,\)"),
    ],
)
def test_centre_of_other_sites(values, message):
    with pytest.raises(ValueError, match=message):
        make_mcmc("sgld", kernel={"control_variate": values}).run(random.key(0), Y)


def test_centre_where_the_density_is_not_finite():
    kernel = KERNELS["sgld"].make(gaussian_model, control_variate={"loc": np.array([np.inf])})
    with pytest.raises(RuntimeError, match="control variates are not finite"):
        kernel.init(random.key(0), 0, None, (jnp.zeros((4, 1)), 1.0, 2), {})
