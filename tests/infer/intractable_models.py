"""Doubly intractable models: the dependence on a latent hides in every place that there is."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from numpyro import handlers
from numpyro.distributions import constraints

from numpyro_score import networks
from numpyro_score.distributions import EnergyDistribution, Mixture, Product, ScoreDistribution


def energy(x, c):
    return 0.5 * jnp.sum((x * c) ** 2)


def conditional(c, **options):
    return EnergyDistribution(energy, (2,), condition=jnp.atleast_1d(c), **options)


def theta():
    return numpyro.sample("theta", dist.HalfNormal(1.0))


def condition_model():
    numpyro.sample("x", conditional(theta()))


def stopped_gradient_model():
    numpyro.sample("x", conditional(lax.stop_gradient(theta())))


def discrete_function_model():
    numpyro.sample("x", conditional(jnp.where(theta() > 1, 1.0, 2.0)))


def scan_model():
    t = theta()
    c, _ = lax.scan(lambda c, _: (c + t, None), 0.0, None, length=3)
    numpyro.sample("x", conditional(c))


def branch_model():
    c = lax.cond(theta() > 0, lambda: 1.0, lambda: 2.0)
    numpyro.sample("x", conditional(c))


def while_model():
    c = lax.while_loop(lambda c: c < 3, lambda c: c + 1, theta())
    numpyro.sample("x", conditional(c))


def jit_model():
    numpyro.sample("x", conditional(jax.jit(lambda t: 2 * t)(theta())))


def observed_likelihood_model():
    numpyro.sample("x", conditional(theta()), obs=jnp.ones(2))


def wrapped_model():
    d = conditional(theta()).expand([3]).to_event(1).mask(jnp.ones((), bool))
    numpyro.sample("x", d)


def transformed_model():
    base = conditional(theta())
    numpyro.sample(
        "x", dist.TransformedDistribution(base, dist.transforms.AffineTransform(0.0, 2.0))
    )


def mask_model():
    numpyro.sample("x", conditional(1.0).mask(theta() > 1))


def scale_model():
    t = theta()
    with handlers.scale(scale=t):
        numpyro.sample("x", conditional(1.0))


def support_model():
    support = constraints.interval(0.0, theta())
    numpyro.sample("x", EnergyDistribution(lambda x: jnp.sum(x**2), (2,), support=support))


def score_model():
    c = theta()[None]
    numpyro.sample("x", ScoreDistribution(lambda x, c: -x * c**2, (2,), condition=c))


def anchor_model():
    anchor = theta() * jnp.ones(2)
    numpyro.sample("x", ScoreDistribution(lambda x: -x, (2,), anchor=anchor))


def network_model():
    network = networks.EnergyMLP(2, width=4, key=random.key(0))
    t = theta()
    network = eqx.tree_at(lambda n: n.head, network, t * jnp.ones(4))
    numpyro.sample("x", EnergyDistribution(network, (2,)))


def closure_model():
    t = theta()
    numpyro.sample("x", EnergyDistribution(lambda x: energy(x, t), (2,)))


def score_closure_model():
    t = theta()
    numpyro.sample("x", ScoreDistribution(lambda x: -t * x, (2,)))


def param_model():
    c = numpyro.param("theta", jnp.ones(1))
    numpyro.sample("x", conditional(c))


def product_factor_model():
    """A factor with a normalizer of its own: that of the product is another."""
    factor = dist.Normal(theta() * jnp.ones(2), 1.0).to_event(1)
    numpyro.sample("x", Product([conditional(1.0), factor]))


def product_weight_model():
    numpyro.sample("x", Product([conditional(1.0)], weights=[theta()]))


def product_closure_model():
    t = theta()
    inner = EnergyDistribution(lambda x: energy(x, t), (2,), log_normalizer=-2 * jnp.log(t))
    numpyro.sample("x", Product([dist.Normal(jnp.zeros(2), 1.0).to_event(1), inner]))


def product_condition_model():
    inner = Product([conditional(theta()), conditional(2.0)]).expand([3]).to_event(1)
    numpyro.sample("x", inner, obs=jnp.ones((3, 2)))


def mixture_model():
    components = [conditional(theta()), conditional(1.0)]
    numpyro.sample("x", Mixture(components, log_weights=[0.0, 1.0]))


REFUSED = [
    product_factor_model,
    product_weight_model,
    product_closure_model,
    product_condition_model,
    mixture_model,
    condition_model,
    stopped_gradient_model,
    discrete_function_model,
    scan_model,
    branch_model,
    while_model,
    jit_model,
    observed_likelihood_model,
    wrapped_model,
    transformed_model,
    mask_model,
    scale_model,
    support_model,
    score_model,
    anchor_model,
    network_model,
    closure_model,
    score_closure_model,
    param_model,
]
