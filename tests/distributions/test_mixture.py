"""Mixtures of learned densities and others: what their weights mean, and when they mean nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_score.distributions import (
    EnergyDistribution,
    Mixture,
    Product,
    ScoreDistribution,
    estimate_log_normalizer,
)
from numpyro_score.infer import check_model
from numpyro_score.samplers import Langevin

KEY = jax.random.key(0)
LOG_Z = float(jnp.log(2 * jnp.pi))


def learned(mean=2.0, cls=EnergyDistribution, **options):
    """A normal in two dimensions, of log Z = log 2π as an energy."""
    if cls is ScoreDistribution:
        return cls(lambda x: mean - x, (2,), **options)
    return cls(lambda x: 0.5 * jnp.sum((x - mean) ** 2), (2,), **options)


OTHER = dist.Normal(-2 * jnp.ones(2), 1.0).to_event(1)


def test_the_density_is_that_of_numpyro():
    d = Mixture([learned(log_normalizer=LOG_Z), OTHER], weights=[0.3, 0.7])
    parts = [dist.Normal(2 * jnp.ones(2), 1.0).to_event(1), OTHER]
    exact = dist.MixtureGeneral(dist.Categorical(jnp.array([0.3, 0.7])), parts)
    x = 3 * jax.random.normal(KEY, (20, 2))
    assert d.normalized
    np.testing.assert_allclose(d.log_prob(x), exact.log_prob(x), rtol=1e-5)
    expected = exact.component_log_probs(x)
    np.testing.assert_allclose(
        d.component_probabilities(x), jax.nn.softmax(expected, -1), atol=1e-5
    )


def test_draws_are_shared_by_weight():
    parts = [learned(5.0, log_normalizer=LOG_Z), OTHER]
    d = Mixture(parts, weights=[0.2, 0.8], sampler=Langevin(num_steps=200))
    draws = np.asarray(d.sample(KEY, (2_000,)))
    first = draws[:, 0] > 1.5
    assert abs(first.mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 2_000)
    np.testing.assert_allclose(draws[first].mean(0), 5.0, atol=5 / np.sqrt(first.sum()))
    np.testing.assert_allclose(draws[~first].std(0), 1.0, atol=0.1)
    with pytest.raises(NotImplementedError, match="EnergyDistribution has a density but no exact"):
        Mixture(parts).sample(KEY)


@pytest.mark.parametrize("part", [learned(), learned(cls=ScoreDistribution)])
def test_an_unknown_normalizer_is_refused_with_the_ways_out(part):
    message = r"number 0, (Energy|Score)Distribution is not.*with_log_normalizer.*log_weights"
    with pytest.raises(ValueError, match=message):
        Mixture([part, OTHER])
    with pytest.raises(ValueError, match="number 1, Product"):
        Mixture([OTHER, Product([OTHER, OTHER])])


def test_a_score_with_its_normalizer_is_a_component():
    part = learned(cls=ScoreDistribution)
    log_z = estimate_log_normalizer(part, KEY, num_particles=500, num_temperatures=50)
    d = Mixture([part.with_log_normalizer(log_z.log_normalizer), OTHER])
    # A score is known from its anchor on, at which its density is 1.
    np.testing.assert_allclose(log_z.log_normalizer, LOG_Z + 4.0, atol=0.2)
    exact = jnp.logaddexp(OTHER.log_prob(jnp.zeros(2)), -4.0 - LOG_Z) - jnp.log(2.0)
    np.testing.assert_allclose(d.log_prob(jnp.zeros(2)), exact, atol=0.2)


def test_relative_weights_of_densities_as_they_are():
    d = Mixture([learned(), OTHER], log_weights=[-LOG_Z, 0.0])
    assert not d.normalized
    x = jax.random.normal(KEY, (5, 2))
    exact = Mixture([learned(log_normalizer=LOG_Z), OTHER])
    difference = d.with_log_normalizer(jnp.log(2.0)).log_prob(x) - exact.log_prob(x)
    np.testing.assert_allclose(difference, 0.0, atol=1e-5)
    # Where nothing is unknown they are made probabilities.
    d = Mixture([OTHER, OTHER], log_weights=[5.0, 5.0])
    assert d.normalized
    np.testing.assert_allclose(d.log_prob(x), OTHER.log_prob(x), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([],), {}, ValueError, "at least one component"),
        ((OTHER,), {}, TypeError, "a list of components"),
        (([OTHER, OTHER], [0.5, 0.6]), {}, ValueError, "sum to 1"),
        (([OTHER, OTHER], [1.5, -0.5]), {}, ValueError, "above 0"),
        (([OTHER, OTHER], [1.0]), {}, ValueError, "each of the 2 distributions"),
        (([OTHER], [1.0]), {"log_weights": [0.0]}, ValueError, "not both"),
        (([OTHER],), {"log_normalizer": 1.0}, ValueError, "is normalized"),
        (([OTHER],), {"log_weights": [jnp.inf]}, ValueError, "log_weights must be finite"),
        (([OTHER, dist.Dirichlet(jnp.ones(2))],), {}, ValueError, "the same support"),
    ],
)
def test_bad_arguments(arguments, options, error, message):
    with pytest.raises(error, match=message):
        Mixture(*arguments, **options)


def test_a_mixture_of_normalized_components_may_depend_on_latents():
    def model():
        share = numpyro.sample("share", dist.Beta(2.0, 2.0))
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        parts = [learned(log_normalizer=LOG_Z), dist.Normal(mean * jnp.ones(2), 1.0).to_event(1)]
        numpyro.sample("x", Mixture(parts, weights=[share, 1 - share]), obs=jnp.ones(2))

    check_model(model)
