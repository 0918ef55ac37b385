"""The posteriors that the kernel benchmark samples."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.util import initialize_model
from sklearn.datasets import load_breast_cancer

from numpyro_score import networks, objectives
from numpyro_score.distributions import EnergyDistribution
from numpyro_score.training import fit


class Target(NamedTuple):
    """A NumPyro model with its data. No deterministic sites: MCMC would replay the model."""

    name: str
    model: Callable[..., None]
    args: tuple[Any, ...]

    def potential_fn(self) -> Callable[[dict], jax.Array]:
        """Return the potential energy of unconstrained values, for samplers without a model."""
        return initialize_model(jax.random.key(0), self.model, model_args=self.args).potential_fn


def eight_schools() -> Target:
    """Eight schools, non-centred: 10 dimensions, a skewed scale."""
    effects = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def model(errors: jax.Array, effects: jax.Array) -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        z = numpyro.sample("z", dist.Normal().expand([8]).to_event(1))
        numpyro.sample("y", dist.Normal(mu + tau * z, errors).to_event(1), obs=effects)

    return Target("eight schools (10-d)", model, (errors, effects))


def logistic_regression() -> Target:
    """Breast cancer data, standardized, and an intercept: 31 correlated coefficients.

    The prior is Normal(0, 1) on each: one standard deviation of a feature is not expected to
    change the odds by much more than a factor of e² either way.
    """
    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    X = jnp.column_stack([jnp.ones(len(features)), jnp.asarray(features)])

    def model(X: jax.Array, y: jax.Array) -> None:
        weights = numpyro.sample("weights", dist.Normal().expand([X.shape[1]]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=X @ weights).to_event(1), obs=y)

    return Target("logistic regression (31-d)", model, (X, jnp.asarray(labels, X.dtype)))


def energy_network() -> Target:
    """An energy network, fitted to a mixture of four overlapping normals: 16 dimensions."""
    means_key, pick_key, noise_key, network_key, fit_key = jax.random.split(jax.random.key(0), 5)
    means = 0.5 * jax.random.normal(means_key, (4, 16))
    scales = jnp.array([0.4, 0.6, 0.8, 1.0])
    component = jax.random.randint(pick_key, (4096,), 0, 4)
    noise = scales[component, None] * jax.random.normal(noise_key, (4096, 16))
    result = fit(
        fit_key,
        networks.EnergyMLP(16, width=64, depth=2, key=network_key),
        means[component] + noise,
        objectives.DenoisingScoreMatching(noise_scale=0.3),
        num_steps=2_000,
        progress_bar=False,
    )

    def model() -> None:
        numpyro.sample("x", EnergyDistribution(result.network, event_shape=(16,)))

    return Target("energy network (16-d)", model, ())


def ill_conditioned_normal() -> Target:
    """A normal in 100 dimensions, turned at random, with a condition number of 10⁴."""
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(100, 100)))
    scale_tril = np.linalg.cholesky((rotation * np.geomspace(1e-2, 1e2, 100)) @ rotation.T)

    def model(scale_tril: jax.Array) -> None:
        numpyro.sample("x", dist.MultivariateNormal(jnp.zeros(100), scale_tril=scale_tril))

    return Target("ill-conditioned normal (100-d)", model, (jnp.asarray(scale_tril, float),))


def hierarchical_regression() -> Target:
    """Varying intercepts and slopes of 498 groups, non-centred: 1,000 dimensions."""
    num_groups, rng = 498, np.random.default_rng(0)
    group = rng.integers(num_groups, size=5 * num_groups)
    x = rng.normal(size=len(group))
    effects = rng.normal(size=(2, num_groups)) * np.array([[1.0], [0.5]])
    y = effects[0, group] + effects[1, group] * x + 0.5 * rng.normal(size=len(group))

    def model(group: jax.Array, x: jax.Array, y: jax.Array) -> None:
        scales = numpyro.sample("scales", dist.HalfNormal(jnp.ones(2)).to_event(1))
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        z = numpyro.sample("z", dist.Normal().expand([2, num_groups]).to_event(2))
        mean = scales[0] * z[0, group] + (slope + scales[1] * z[1, group]) * x
        numpyro.sample("y", dist.Normal(mean, noise).to_event(1), obs=y)

    data = (jnp.asarray(group), jnp.asarray(x, float), jnp.asarray(y, float))
    return Target("hierarchical regression (1,000-d)", model, data)


def digits() -> Target:
    """The posterior of the quickstart: an image of 64 pixels and its noise."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import quickstart

    train, held_out = quickstart.load_images()
    A, prior = quickstart.blur_operator(), quickstart.learn_prior(train)
    grain = np.random.default_rng(7).normal(size=64)
    y = jnp.asarray(A @ held_out[0] + quickstart.NOISE * grain, jnp.float32)
    return Target("digits (65-d)", quickstart.deblurring(prior), (A, y))


TARGETS = {
    "eight_schools": eight_schools,
    "logistic": logistic_regression,
    "energy": energy_network,
    "normal": ill_conditioned_normal,
    "hierarchical": hierarchical_regression,
    "digits": digits,
}
