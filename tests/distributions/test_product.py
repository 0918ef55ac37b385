"""Products and powers of densities, and conditions composed, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.infer import MCMC
from numpyro.infer.util import potential_energy

from numpyro_score.distributions import (
    EnergyDistribution,
    Product,
    ScoreDistribution,
    _tails,
    compose_conditions,
    tempered,
)
from numpyro_score.infer import MALA
from tests.statistics import Moments, assert_recovers

KEY = jax.random.key(0)


def normal(mean, precision=1.0):
    """The energy of a normal in one dimension of an event."""
    return EnergyDistribution(lambda x: 0.5 * precision * jnp.sum((x - mean) ** 2), (2,))


def positive_product():
    learned = EnergyDistribution(
        lambda x: jnp.sum(x - 2 * jnp.log(x)), (3,), support=constraints.positive
    )  # Gamma(3, 1)
    return Product([learned, dist.Gamma(4 * jnp.ones(3), 2.0).to_event(1)], weights=[0.5, 2.0])


# Shapes less 1 add up by their weights, and rates: 0.5 * 2 + 2 * 3, 0.5 * 1 + 2 * 2.
POSITIVE = dist.Gamma(8 * jnp.ones(3), 4.5).to_event(1)


def potential_error():
    """How far NumPyro's potential of a product is from that of the exact density."""
    z = 0.5 * jax.random.normal(KEY, (8, 3))

    def potential(d):
        return jax.vmap(
            lambda z: potential_energy(lambda: numpyro.sample("x", d), (), {}, {"x": z})
        )(z)

    return float(jnp.ptp(potential(positive_product()) - potential(POSITIVE)))


def test_factors_on_a_support_have_one_jacobian():
    assert potential_error() < 1e-4


PLANTED = {
    "weights dropped": lambda self, x, condition=None: sum(d.log_prob(x) for d in self.factors),
    "a Jacobian for each factor": lambda self, x, condition=None: self._combine(
        [d.log_prob(x) + jnp.sum(jnp.log(x), -1) for d in self.factors]
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_catches_a_wrong_sum(bug, monkeypatch):
    monkeypatch.setattr(Product, "_event_log_prob", PLANTED[bug])
    assert potential_error() > 0.1


def test_a_batch_of_products_has_a_batch_of_modes():
    """One event of a batch meets its own condition, and its own row of a factor of NumPyro."""
    condition = jnp.array([[0.0, 1.0], [2.0, -1.0]])
    learned = EnergyDistribution(
        lambda x, c: 0.5 * jnp.sum((x - c) ** 2), (2,), condition=condition
    )
    d = Product([learned, dist.Normal(condition + 2.0, 1.0).to_event(1)])
    np.testing.assert_allclose(d.mode(KEY, num_starts=2), condition + 1.0, atol=1e-3)


def test_scores_are_added_and_products_taken_apart():
    inner = Product([normal(1.0), ScoreDistribution(lambda x: -x, (2,))], weights=[2.0, 0.5])
    d = Product([inner, normal(0.0)], weights=[2.0, 1.0])
    assert [float(w) for w in d.weights] == [4.0, 1.0, 1.0]
    x = jnp.array([0.3, -2.0])
    np.testing.assert_allclose(d.score(x), 4 * (1 - x) - x - x, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(d.log_prob)(x), d.score(x), rtol=1e-5)


def test_a_normalizer_stays_when_a_product_is_taken_apart():
    # N(0, 1)² = N(0, 1/2) / (2 √π).
    halves = [dist.Normal(0.0, 1.0), dist.Normal(0.0, 1.0)]
    inner = Product(halves, log_normalizer=-jnp.log(2 * jnp.sqrt(jnp.pi)))
    exact = dist.Normal(0.0, jnp.sqrt(0.5))
    x = jnp.linspace(-2, 2, 5)
    np.testing.assert_allclose(inner.log_prob(x), exact.log_prob(x), rtol=1e-5)
    again = Product([inner], log_normalizer=0.0)
    np.testing.assert_allclose(again.log_prob(x), exact.log_prob(x), rtol=1e-5)
    # Its square, normalized by that of N(0, 1/2)².
    square = Product([inner], [2.0], log_normalizer=-0.5 * jnp.log(2 * jnp.pi))
    np.testing.assert_allclose(square.log_prob(x), dist.Normal(0, 0.5).log_prob(x), rtol=1e-4)
    assert Product([inner]).log_normalizer is None


def test_a_power_of_a_density():
    d = tempered(dist.Normal(1.0, 2.0), 4.0)
    exact = dist.Normal(1.0, 4.0)
    x = jnp.linspace(-5, 5, 7)
    assert float(jnp.ptp(d.log_prob(x) - exact.log_prob(x))) < 1e-5
    assert not d.normalized


def test_conditions_are_composed_as_bayes_rule_has_it():
    """x ~ N(0, I), two measurements of it, each seen alone: the posterior of both."""
    noise, data = jnp.array([0.5, 2.0]), jnp.array([1.0, 3.0])
    precision = 1 + 1 / noise**2
    alone = [
        dist.Normal(y / s**2 / p * jnp.ones(2), p**-0.5).to_event(1)
        for y, s, p in zip(data, noise, precision, strict=True)
    ]
    d = compose_conditions(normal(0.0), alone)
    both = 1 + jnp.sum(1 / noise**2)
    exact = dist.Normal(jnp.sum(data / noise**2) / both * jnp.ones(2), both**-0.5).to_event(1)
    x = jax.random.normal(KEY, (10, 2))
    assert float(jnp.ptp(d.log_prob(x) - exact.log_prob(x))) < 1e-4
    # Guidance: p(x | c)^3 / p(x)^2, of precision 3 * 5 - 2 and mean 3 * 4 / 13.
    guided = compose_conditions(normal(0.0), alone[:1], weights=[3.0])
    np.testing.assert_allclose(guided.score(jnp.zeros(2)), 12.0, rtol=1e-4)
    np.testing.assert_allclose(guided.score(jnp.full(2, 12 / 13)), 0.0, atol=1e-4)
    # One condition at full weight leaves nothing of p(x).
    assert len(compose_conditions(normal(0.0), alone[:1]).factors) == 1


# -- what cannot be normalized -----------------------------------------------------------------


def turned(diagonal):
    """A normal whose precision has these values along axes that are not those of x."""
    size = len(diagonal)
    axes = jnp.linalg.qr(jax.random.normal(KEY, (size, size)))[0]
    return dist.MultivariateNormal(
        jnp.zeros(size), precision_matrix=(axes * jnp.asarray(diagonal)) @ axes.T
    )


WIDE = [0.5, *[1.0] * 19]
PROPER = {
    "very narrow": lambda: tempered(dist.Normal(0.0, 1e-3), 4.0),
    "a light power of a heavy tail": lambda: tempered(dist.StudentT(3.0, 0.0, 1.0), 2.0),
    "a half line": lambda: tempered(dist.Gamma(2.0, 1.0), 2.0),
    "a cold one": lambda: tempered(dist.Cauchy(0.0, 1.0), 0.5),
}
IMPROPER = {
    "a heavy tail left over": lambda: Product([normal(0.0, 0.5), normal(0.0)], [1.0, -1.0]),
    "nothing left over": lambda: Product([normal(0.0), normal(1.0)], [1.0, -1.0]),
    "one direction of many": lambda: Product([turned(WIDE), turned([1.0] * 20)], [1.0, -0.6]),
    "a Cauchy's root": lambda: tempered(dist.Cauchy(0.0, 1.0), 2.0),
    "an edge of an interval": lambda: Product(
        [dist.Beta(2.0, 2.0), dist.Beta(4.0, 1.0)], [1.0, -1.0]
    ),
}


@pytest.mark.parametrize("name", PROPER)
def test_what_can_be_normalized_passes(name):
    assert not PROPER[name]().normalized


@pytest.mark.parametrize("name", IMPROPER)
def test_what_cannot_be_normalized_is_refused(name):
    with pytest.raises(ValueError, match="does not fall fast enough far out"):
        IMPROPER[name]()


def test_rays_that_do_not_turn_miss_the_one_direction(monkeypatch):
    monkeypatch.setattr(_tails, "_NUM_STEPS", 0)
    _tails._slopes.clear_cache()
    IMPROPER["one direction of many"]()
    _tails._slopes.clear_cache()


def test_traced_tails_are_not_looked_at():
    def log_prob(mean, **options):
        factors = [dist.Normal(mean, 1.0), dist.Normal(0.0, 2.0)]
        return Product(factors, [1.0, -1.0], **options).log_prob(0.0)

    with pytest.raises(ValueError, match="check_tails=False"):
        jax.jit(log_prob)(1.0)
    assert jnp.isfinite(jax.jit(lambda mean: log_prob(mean, check_tails=False))(1.0))
    assert jnp.isfinite(jax.jit(lambda: log_prob(1.0))())


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Product([]), ValueError, "at least one factor is needed"),
        (lambda: Product(normal(0.0)), TypeError, "use tempered"),
        (lambda: Product([jnp.sin]), TypeError, "number 0 is .*EnergyDistribution"),
        (lambda: Product([dist.Poisson(1.0)]), ValueError, "number 0, a Poisson, has none"),
        (lambda: Product([dist.Delta(1.0)]), ValueError, "a Delta"),
        (
            lambda: Product([normal(0.0), dist.Normal(jnp.zeros(2), 1.0)]),
            ValueError,
            r"the same event_shape, got \[\(2,\), \(\)\]\. .*to_event",
        ),
        (
            lambda: Product([dist.Normal(0.0, 1.0), dist.Gamma(1.0, 1.0)]),
            ValueError,
            "the same support, got .*Real.*Positive",
        ),
        (
            lambda: Product([dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 2.0)]),
            ValueError,
            "the same support",
        ),
        (
            lambda: Product([dist.Normal(jnp.zeros(2), 1.0), dist.Normal(jnp.zeros(3), 1.0)]),
            ValueError,
            r"batch shapes must broadcast, got \[\(2,\), \(3,\)\]",
        ),
        (lambda: Product([normal(0.0)], [1.0, 2.0]), ValueError, "each of the 1 distributions"),
        (lambda: Product([normal(0.0)], [jnp.ones(2)]), ValueError, r"the shapes \[\(2,\)\]"),
        (lambda: Product([normal(0.0)], [jnp.nan]), ValueError, "weights must be finite"),
        (lambda: Product([normal(0.0)], [0.0]), ValueError, "weights must not be 0"),
        (lambda: Product([normal(0.0)], sampler=5), TypeError, "sampler must be a .*Langevin"),
        (lambda: tempered(normal(0.0), -1.0), ValueError, "temperature must be a finite number"),
        (lambda: compose_conditions(normal(0.0), []), ValueError, "at least one conditional"),
        (lambda: compose_conditions(normal(0.0), normal(1.0)), TypeError, "one for each condition"),
        (lambda: Product([normal(0.0)]).log_prob(jnp.ones(3)), ValueError, r"\(\.\.\., 2\)"),
        (lambda: Product([normal(0.0)]).sample(KEY), NotImplementedError, "MALA.*Langevin"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


# -- in a model --------------------------------------------------------------------------------


@pytest.mark.statistics
def test_the_posterior_under_a_product():
    """Of an energy, a score and a normal of NumPyro, seen through noise: all precisions add.

    By the local path, for which the product is a score.
    """
    mean = jnp.array([1.0, -1.0])
    factors = [
        normal(1.0),
        ScoreDistribution(lambda x: -2 * x, (2,)),
        dist.Normal(mean, 1.0).to_event(1),
    ]
    prior = Product(factors, weights=[1.0, 0.5, 2.0])  # precision 1 + 1 + 2

    def model(y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)  # and 4

    y = jnp.array([2.0, 0.5])
    mcmc = MCMC(
        MALA(model, path="local"),
        num_warmup=300,
        num_samples=1_000,
        num_chains=8,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(KEY, y)
    exact = Moments((1.0 + 2 * mean + 4 * y) / 8, np.full(2, 8**-0.5))
    assert_recovers(mcmc.get_samples(group_by_chain=True)["x"], exact)
