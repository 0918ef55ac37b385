"""Estimates from minibatches are unbiased, whatever plates, sites and control variates."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from jax.flatten_util import ravel_pytree

from numpyro_score.distributions import EnergyDistribution, ScoreDistribution
from numpyro_score.infer import SGLD
from numpyro_score.infer._plates import draw_subset
from tests.statistics import NUM_ERRORS

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), float)


def nested(x):
    """Rows and columns subsample; the prior and the plate ``rows`` alone have terms too."""
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", 6, subsample_size=4, dim=-2) as rows:
        numpyro.sample("first", dist.Normal(loc, 2.0), obs=x[rows, :1])
        with numpyro.plate("columns", 4, subsample_size=3, dim=-1) as columns:
            taken = x[rows][:, columns]
            numpyro.sample("x", dist.StudentT(3.0, loc, scale), obs=taken)


def nested_by_subsample(x):
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", 6, subsample_size=4, dim=-2):
        numpyro.sample("first", dist.Normal(loc, 2.0), obs=numpyro.subsample(x[:, :1], 0))
        with numpyro.plate("columns", 4, subsample_size=3, dim=-1):
            numpyro.sample("x", dist.StudentT(3.0, loc, scale), obs=numpyro.subsample(x, 0))


def learned(x):
    """The same posterior, of a prior known by its score, and observations by their energy."""
    loc = numpyro.sample("loc", ScoreDistribution(lambda z: -z / 4, (1,)))[0]
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", 6, subsample_size=4, dim=-2) as rows:
        first = EnergyDistribution(
            lambda x, c: 0.5 * ((x - c) / 2) ** 2,
            (),
            condition=loc,
            condition_event_dim=0,
            log_normalizer=np.log(2 * np.sqrt(2 * np.pi)),
        )
        numpyro.sample("first", first, obs=x[rows, :1])
        with numpyro.plate("columns", 4, subsample_size=3, dim=-1) as columns:
            numpyro.sample("x", dist.StudentT(3.0, loc, scale), obs=x[rows][:, columns])


def nested_in_full(x):
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", 6, dim=-2):
        numpyro.sample("first", dist.Normal(loc, 2.0), obs=x[:, :1])
        with numpyro.plate("columns", 4, dim=-1):
            numpyro.sample("x", dist.StudentT(3.0, loc, scale), obs=x)


def without_scale(x):
    """The planted bug: N / B is dropped from both plates."""
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", 6, subsample_size=4, dim=-2) as rows:
        with numpyro.handlers.scale(scale=4 / 6):
            numpyro.sample("first", dist.Normal(loc, 2.0), obs=x[rows, :1])
        columns_plate = numpyro.plate("columns", 4, subsample_size=3, dim=-1)
        with columns_plate as columns, numpyro.handlers.scale(scale=4 / 6 * 3 / 4):
            numpyro.sample("x", dist.StudentT(3.0, loc, scale), obs=x[rows][:, columns])


def every_minibatch():
    """All 15 × 4 minibatches of ``nested``, each as likely as any other."""
    pairs = list(
        itertools.product(itertools.combinations(range(6), 4), itertools.combinations(range(4), 3))
    )
    return {
        "rows": jnp.array([rows for rows, _ in pairs]),
        "columns": jnp.array([columns for _, columns in pairs]),
    }


Z = {"loc": jnp.array(0.4), "scale": jnp.array(-0.2)}


@functools.cache
def estimates(model, centre=None):
    """Mean and variance of all estimates at one z, and what a pass over the data says."""
    kernel = SGLD(model, step_size=1.0)
    target, z = kernel._build_target(random.key(0), None, (X,), {})
    target = target.potential_fn((X,), {})
    flat, unravel = ravel_pytree({name: jnp.reshape(Z[name], z[name].shape) for name in Z})

    @jax.jit
    def evaluate():
        control = None if centre is None else target.control_at(unravel, jnp.array(centre))
        estimate = target.estimator(unravel, control)
        values = jax.vmap(lambda rows: estimate(flat, rows))(every_minibatch())
        return values, target.from_all_data(unravel, flat)

    values, full = evaluate()
    scores = np.asarray(values.score)
    return float(values.logdensity.mean()), scores.mean(0), scores.var(0), full


@functools.cache
def in_full():
    """Log density and score of all data, by NumPyro."""
    potential_fn = numpyro.infer.util.initialize_model(
        random.key(0), nested_in_full, model_args=(X,)
    ).potential_fn
    value, grad = jax.jit(jax.value_and_grad(potential_fn))(Z)
    return -float(value), -np.array([grad["loc"], grad["scale"]])


def assert_unbiased(model, centre=None):
    logdensity, score, _, _ = estimates(model, centre)
    # Z of a density that is known by its score is not in it.
    prior = -np.log(2 * np.sqrt(2 * np.pi)) if model is learned else 0.0
    np.testing.assert_allclose(logdensity, in_full()[0] - prior, rtol=1e-5)
    np.testing.assert_allclose(score, in_full()[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [nested, nested_by_subsample, learned])
def test_estimates_have_the_full_gradient_as_their_mean_over_all_minibatches(model):
    assert_unbiased(model)
    assert (estimates(model)[2] > 0.1).all(), "or there is nothing to average"


def test_catches_a_dropped_scale():
    with pytest.raises(AssertionError, match="Mismatched elements"):
        assert_unbiased(without_scale)


def test_a_pass_over_all_data_in_blocks_is_the_full_gradient():
    full = estimates(nested)[3]
    np.testing.assert_allclose(full.logdensity, in_full()[0], rtol=1e-5)
    np.testing.assert_allclose(full.score, in_full()[1], rtol=1e-4, atol=1e-4)


def test_control_variates_are_unbiased_anywhere_and_quiet_near_their_centre():
    near, far = (0.45, -0.15), (3.0, 1.5)
    assert_unbiased(nested, near)
    assert_unbiased(nested, far)
    assert (estimates(nested, near)[2] < 0.02 * estimates(nested)[2]).all()


def test_every_subset_is_drawn_as_often_as_any_other():
    num = 15_000
    keys = random.split(random.key(0), num)
    subsets = np.sort(np.asarray(jax.jit(jax.vmap(lambda k: draw_subset(k, 6, 4)))(keys)), axis=1)
    found, counts = np.unique(subsets, axis=0, return_counts=True)
    assert found.tolist() == [list(c) for c in itertools.combinations(range(6), 4)]
    error = np.sqrt(num / 15 * (14 / 15))
    assert np.abs(counts - num / 15).max() < NUM_ERRORS * error
