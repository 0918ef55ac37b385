"""Geweke's joint test: data and parameters drawn in turn keep the prior (Geweke, 2004).

Chains start at the prior, each with data of its own. A step draws new data given the parameters,
then lets the kernel move the parameters given these data. If both leave the joint density alone,
the parameters are still draws of the prior after any number of steps. The chains are independent,
so plain z-scores of moments apply.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random

from numpyro_score.infer import (
    GHMC,
    HMC,
    MALA,
    MCLMC,
    NUTS,
    SGHMC,
    SGLD,
    SGNHT,
    ULA,
    AdjustedMCLMC,
    Barker,
    ChEES,
)

pytestmark = pytest.mark.statistics

NUM_CHAINS, NUM_STEPS, NUM_GROUPS = 4000, 40, 3
NUM_ROWS, NUM_TAKEN = 6, 3
MAX_Z = 4.5  # of 11 moments; by chance once in 13,000 tests


def hierarchical_model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("group", NUM_GROUPS):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def model_on_minibatches(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.LogNormal(0.0, 0.5))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([NUM_GROUPS]).to_event(1))
    with numpyro.plate("rows", NUM_ROWS, subsample_size=NUM_TAKEN) as rows:
        numpyro.sample("y", dist.Normal(theta[rows % NUM_GROUPS], 1.0), obs=y[rows])


def draw_data(rng_key, theta, num_rows):
    """Data given the parameters; the groups take turns."""
    mean = theta[..., np.arange(num_rows) % NUM_GROUPS]
    return mean + random.normal(rng_key, mean.shape)


def draw_prior(rng_key, num):
    """Draws of the prior, unconstrained: tau by its logarithm."""
    mu_key, tau_key, theta_key = random.split(rng_key, 3)
    mu = random.normal(mu_key, (num,))
    log_tau = 0.5 * random.normal(tau_key, (num,))
    noise = random.normal(theta_key, (num, NUM_GROUPS))
    return {"mu": mu, "tau": log_tau, "theta": mu[:, None] + jnp.exp(log_tau)[:, None] * noise}


def moments(z):
    """Functions of the parameters whose exact mean under the prior is known."""
    mu, log_tau = np.asarray(z["mu"], np.float64), np.asarray(z["tau"], np.float64)
    noise = (np.asarray(z["theta"], np.float64) - mu[:, None]) / np.exp(log_tau)[:, None]
    return {
        "mu": (mu, 0.0),
        "mu²": (mu**2, 1.0),
        "log tau": (log_tau, 0.0),
        "log tau²": (log_tau**2, 0.25),
        "theta": (noise[:, 0], 0.0),
        "theta²": (noise[:, 0] ** 2, 1.0),
        "|theta|²": ((noise**2).mean(1), 1.0),
        "mu log tau": (mu * log_tau, 0.0),
        "mu theta": (mu * noise[:, 1], 0.0),
        "log tau theta²": (log_tau * (noise[:, 2] ** 2 - 1), 0.0),
        "theta theta": (noise[:, 0] * noise[:, 1], 0.0),
    }


def assert_keeps_the_joint_density(kernel, num_rows=NUM_GROUPS):
    """Run the successive-conditional simulator and compare what it ends at with the prior."""
    start_key, data_key, init_key, run_key = random.split(random.key(0), 4)
    z = draw_prior(start_key, NUM_CHAINS)
    y = draw_data(data_key, z["theta"], num_rows)

    # A kernel that pools chains gets pools of one: each chain has data of its own.
    pooled = getattr(kernel, "always_pooled", False)
    enter = (lambda tree: jax.tree.map(lambda x: x[None], tree)) if pooled else lambda tree: tree
    leave = (lambda tree: jax.tree.map(lambda x: x[0], tree)) if pooled else lambda tree: tree

    def simulate(rng_key, key, z, y):
        state = kernel.init(enter(key), 0, enter(z), (y,), {})

        def step(state, rng_key):
            y = draw_data(rng_key, leave(state.z)["theta"], num_rows)
            return kernel.sample(kernel.refresh(state, (y,), {}), (y,), {}), None

        return leave(jax.lax.scan(step, state, random.split(rng_key, NUM_STEPS))[0].z)

    keys = random.split(run_key, NUM_CHAINS), random.split(init_key, NUM_CHAINS)
    end = jax.jit(jax.vmap(simulate))(*keys, z, y)
    assert np.abs(end["mu"] - z["mu"]).mean() > 0.2, "the chains move"
    for name, (values, exact) in moments(end).items():
        score = (values.mean() - exact) / (values.std() / np.sqrt(NUM_CHAINS))
        assert abs(score) < MAX_Z, f"{name} is {score:.1f} standard errors off"


# Step sizes at which the exact kernels reject often, and the biased ones have little bias.
OPTIONS: dict[Any, dict[str, Any]] = {
    MALA: {"step_size": 0.25},
    ULA: {"step_size": 0.01},
    Barker: {"step_size": 0.9},
    GHMC: {"step_size": 0.6},
    HMC: {"step_size": 0.6, "num_steps": 3},
    NUTS: {"step_size": 0.6, "max_tree_depth": 3},
    MCLMC: {"step_size": 0.3, "L": 1.5},
    AdjustedMCLMC: {"step_size": 1.2, "L": 3.0},
    ChEES: {"step_size": 0.6, "trajectory_length": 3.0},
}


ON_MINIBATCHES: dict[Any, dict[str, Any]] = {
    SGLD: {"step_size": 0.01},
    SGHMC: {"step_size": 0.01, "alpha": 1.0, "num_integration_steps": 10},
    SGNHT: {"step_size": 0.01, "alpha": 1.0},
}


@pytest.mark.parametrize("cls", OPTIONS)
def test_the_prior_stays_the_prior(cls):
    assert_keeps_the_joint_density(cls(hierarchical_model, **OPTIONS[cls]))


@pytest.mark.parametrize("cls", ON_MINIBATCHES)
def test_the_prior_stays_the_prior_on_minibatches(cls):
    kernel = cls(model_on_minibatches, **ON_MINIBATCHES[cls])
    assert_keeps_the_joint_density(kernel, NUM_ROWS)


# -- planted bugs, one for each family ---------------------------------------------------------


class StaleData(MALA):
    """Goes on with the score of the data before."""

    def refresh(self, state, model_args, model_kwargs):
        return super().refresh(state, model_args, model_kwargs)._replace(score=state.score)


class HalfTheNoise(ULA):
    """√ε for √(2ε)."""

    def _transition(self, *args):
        transition = super()._transition(*args)
        drift = args[3] * args[2].score
        step = drift + (transition.step - drift) / jnp.sqrt(2.0)
        return transition._replace(step=jnp.where(transition.moved, step, 0.0))


class NoReversal(GHMC):
    """The momentum goes on in its direction where the test failed."""

    def _transition(self, *args):
        transition = super()._transition(*args)
        sign = jnp.where(transition.moved, 1.0, -1.0)
        return transition._replace(
            carry=transition.carry | {"momentum": sign * transition.carry["momentum"]}
        )


class SymmetricBarker(Barker):
    """Steered by the score on the way out, and not on the way back."""

    def _transition(self, rng_key, logdensity_fn, origin, *args):
        def steered_nowhere(v):
            return logdensity_fn(jax.lax.stop_gradient(v)) + 0.0 * jnp.sum(v)

        transition = super()._transition(rng_key, steered_nowhere, origin, *args)
        score = jax.grad(logdensity_fn)(transition.step)
        return transition._replace(score=score)


class ShortTrajectory(HMC):
    """Stops short of the point that was tested."""

    def _transition(self, *args):
        transition = super()._transition(*args)
        return transition._replace(step=0.7 * transition.step)


class HalfTheScore(MCLMC):
    """Steered by half of the score."""

    def _transition(self, rng_key, chain, logdensity_fn, *args):
        return super()._transition(rng_key, chain, lambda v: 0.5 * logdensity_fn(v), *args)


PLANTED = {
    StaleData: MALA,
    HalfTheNoise: ULA,
    SymmetricBarker: Barker,
    NoReversal: GHMC,
    ShortTrajectory: HMC,
    HalfTheScore: MCLMC,
}


@pytest.mark.parametrize("bug", PLANTED)
def test_catches(bug):
    with pytest.raises(AssertionError, match="standard errors off"):
        assert_keeps_the_joint_density(bug(hierarchical_model, **OPTIONS[PLANTED[bug]]))


class HalfTheNoiseOnMinibatches(SGLD):
    """√ε for √(2ε)."""

    def _move(self, rng_key, z, state, step_size, evaluate):
        move = super()._move(rng_key, z, state, step_size, evaluate)
        drift = z + step_size * state.score
        return move._replace(z=drift + (move.z - drift) / jnp.sqrt(2.0))


def test_catches_half_the_noise_on_minibatches():
    kernel = HalfTheNoiseOnMinibatches(model_on_minibatches, **ON_MINIBATCHES[SGLD])
    with pytest.raises(AssertionError, match="standard errors off"):
        assert_keeps_the_joint_density(kernel, NUM_ROWS)
