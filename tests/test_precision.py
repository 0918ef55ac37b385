"""Products that a GPU would round to ten bits say that they want all of float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from jax.lax import Precision

from numpyro_score._precision import exact_products
from numpyro_score.diagnostics._proposals import Proposals
from numpyro_score.diagnostics.maximum_mean_discrepancy import _group_sums, _label_sums
from numpyro_score.distributions import ScoreDistribution
from numpyro_score.distributions._support import event_support, standard_coordinates
from numpyro_score.infer import MALA
from numpyro_score.networks import EnergyMLP
from numpyro_score.networks.base import GaussianBase
from numpyro_score.networks.noise_mlp import Regression
from numpyro_score.networks.noised_base import NoisedGaussian
from tests.infer.test_cost import equations

SIZE = 3
DATA = np.random.default_rng(0).normal(size=(50, SIZE))
X = jnp.ones(SIZE)


def products(function, *args):
    jaxpr = jax.make_jaxpr(function)(*args)
    found = [e.params["precision"] for e in equations(jaxpr) if e.primitive.name == "dot_general"]
    return {p if isinstance(p, tuple) else (p, p) for p in found}


def step(**options):
    kernel = MALA(potential_fn=lambda z: jnp.sinh(z).sum(), **options)
    state = kernel.init(random.split(random.key(0)), 100, jnp.zeros((2, SIZE)), (), {})
    return lambda x: kernel.sample(state, (), {})


def coordinates():
    network = EnergyMLP(SIZE, width=4, key=random.key(0)).fit_base(DATA)
    return standard_coordinates(network, event_support(None, 1), (SIZE,))


def proposals():
    mixture = Proposals.around(DATA, wide=True)
    return lambda x: mixture.log_density(x[None])


def mean_discrepancy(x):
    columns = jnp.ones((len(DATA), 2))
    return [sums(DATA * x, columns, "rbf") for sums in (_group_sums, _label_sums)]


FUNCTIONS = {
    "dense": lambda: step(dense_mass=True),
    "low rank": lambda: step(max_rank=2),
    "energy": lambda: jax.grad(GaussianBase.fit(DATA).energy),
    "score": lambda: GaussianBase.fit(DATA).score,
    "noised energy": lambda: jax.grad(lambda x: NoisedGaussian.fit(DATA).energy(x, 0.1)),
    "noised score": lambda: lambda x: NoisedGaussian.fit(DATA).score(x, 0.1),
    "correction": lambda: lambda x: NoisedGaussian.fit(DATA).correct(x, 0.1),
    "regression": lambda: Regression(jnp.eye(SIZE)),
    "coordinates": lambda: coordinates(),
    "coordinates, pulled back": lambda: jax.jacrev(coordinates()),
    "coordinates, inverted": lambda: lambda x: coordinates().inv(coordinates()(x)),
    "proposals": lambda: proposals(),
    "mean discrepancy": lambda: mean_discrepancy,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_are_exact(name):
    assert products(FUNCTIONS[name](), X) == {(Precision.HIGHEST, Precision.HIGHEST)}


def test_a_line_integral_takes_no_product():
    assert products(ScoreDistribution(lambda x: -x, (SIZE,)).log_prob, X) == set()


def test_a_product_at_default_precision_would_be_noticed():
    assert products(lambda x: x @ jnp.outer(x, x), X) == {(None, None)}
    exact = exact_products(lambda x: x @ jnp.outer(x, x))
    assert products(exact, X) == {(Precision.HIGHEST, Precision.HIGHEST)}
