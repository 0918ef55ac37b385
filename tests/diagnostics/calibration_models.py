"""Hierarchical models with a learned prior of known draws, and bugs that calibration must see.

Scores and energies are exact, so that a kernel that is right has uniform ranks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from blackjax.mcmc import mala
from jax import random
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.distributions import constraints

from numpyro_score.distributions import (
    DiffusionDistribution,
    EnergyDistribution,
    ScoreDistribution,
)
from numpyro_score.infer import MALA
from numpyro_score.sde import VP

NUM_GROUPS = 3
MEANS = jnp.array([[0.0, 0.0], [1.5, 1.0]])
VARIANCES = jnp.array([[0.3, 1.0], [0.5, 0.2]])
WEIGHTS = jnp.array([0.6, 0.4])
SHAPES, RATE = jnp.array([2.0, 3.0]), 2.0
SDE = VP()


def groups(mean, y):
    """Groups around a mean, a spread that is unknown, and one datum of each group."""
    tau = numpyro.sample("tau", dist.LogNormal(-0.5, 0.5))
    with numpyro.plate("group", NUM_GROUPS):
        theta = numpyro.sample("theta", dist.Normal(mean, tau).to_event(1))
        numpyro.sample("y", dist.Normal(theta, 0.5).to_event(1), obs=y)


# -- a skewed mixture, by its energy -----------------------------------------------------------


def mixture_energy(x, alpha=1.0, sigma=0.0):
    """Of αx + σε."""
    spread = alpha**2 * VARIANCES + sigma**2
    square = jnp.sum((x - alpha * MEANS) ** 2 / spread + jnp.log(spread), 1)
    return -logsumexp(jnp.log(WEIGHTS) - 0.5 * square)


def mixture_draw(key, alpha=1.0, sigma=0.0):
    which_key, noise_key = random.split(key)
    which = random.choice(which_key, 2, p=WEIGHTS)
    spread = alpha**2 * VARIANCES + sigma**2
    return alpha * MEANS[which] + jnp.sqrt(spread[which]) * random.normal(noise_key, (2,))


def energy_model(y=None):
    groups(numpyro.sample("x", EnergyDistribution(mixture_energy, (2,))), y)


# -- a Gamma density, by its score, on positive numbers ----------------------------------------


def gamma_draw(key):
    return random.gamma(key, SHAPES) / RATE


def score_model(y=None, scale=1.0):
    def score(x):
        return scale * ((SHAPES - 1) / x - RATE)

    prior = ScoreDistribution(score, (2,), support=constraints.positive)
    groups(jnp.log(numpyro.sample("x", prior)), y)


# -- the mixture as a diffusion, with the noise of its first time ------------------------------


def diffusion_model(y=None):
    def noised(x, t):
        return mixture_energy(x, SDE.mean_scale(t), SDE.marginal_std(t))

    groups(numpyro.sample("x", DiffusionDistribution(noised, SDE, (2,))), y)


def noised_draw(key):
    t = SDE.t_min
    return mixture_draw(key, SDE.mean_scale(t), SDE.marginal_std(t))


MODELS = {
    "energy": (energy_model, mixture_draw),
    "score": (score_model, gamma_draw),
    "diffusion": (diffusion_model, noised_draw),
}

# -- planted bugs ------------------------------------------------------------------------------


class NoCorrection(MALA):
    """The test knows of the densities, and not of the proposals."""

    def _transition(self, rng_key, logdensity_fn, origin, step_size, in_warmup):
        propose_key, accept_key = random.split(rng_key)
        start = mala.MALAState(jnp.zeros_like(origin.score), origin.logdensity, origin.score)
        noise = random.normal(propose_key, origin.score.shape)
        there = step_size * origin.score + jnp.sqrt(2 * step_size) * noise
        logdensity, score = jax.value_and_grad(logdensity_fn)(there)
        accept_prob = jnp.clip(jnp.exp(logdensity - origin.logdensity), 0, 1)
        moved = random.uniform(accept_key) < accept_prob
        new = mala.MALAState(there, logdensity, score)
        new = jax.tree.map(lambda a, b: jnp.where(moved, a, b), new, start)
        right = super()._transition(rng_key, logdensity_fn, origin, step_size, in_warmup)
        return right._replace(
            step=new.position,
            logdensity=new.logdensity,
            score=new.logdensity_grad,
            accept_prob=accept_prob,
            moved=moved,
            diverging=accept_prob == 0,
            statistic=accept_prob,
        )


def without_jacobian(model):
    """MALA on positive numbers, as if it moved on the line."""

    def dropped(data):
        trace = handlers.trace(model).get_trace(data)
        numpyro.factor("jacobian", -jnp.sum(jnp.log(trace["x"]["value"])))

    return MALA(dropped)


def joint_log_likelihood(values, data):
    log_prob = dist.Normal(values["theta"], 0.5).log_prob(data["y"])
    return {"log_likelihood": jnp.sum(log_prob)}


def stacked(draw, num, seed=0):
    return np.asarray(jax.vmap(draw)(random.split(random.key(seed), num)))
