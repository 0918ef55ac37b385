"""log Z of distributions whose normalizer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import log_likelihood

from numpyro_score.distributions import (
    EnergyDistribution,
    ScoreDistribution,
    estimate_log_normalizer,
)
from numpyro_score.infer import DoublyIntractableError, check_model
from numpyro_score.networks import (
    ConvEnergy,
    EnergyMLP,
    InnerProductEnergy,
    NormalizedEnergy,
    ScoreMLP,
)
from tests.cases import DISTRIBUTIONS

# Not of diffusions, which solve an equation for each of thousands of evaluations.
KNOWN = {
    name: case
    for name, case in DISTRIBUTIONS.items()
    if case.exact is not None and "diffusion" not in name
}
KEY = jax.random.key(0)


@pytest.mark.parametrize("name", KNOWN)
def test_log_z_of_every_distribution(name):
    learned, exact = KNOWN[name].make(), KNOWN[name].exact()
    x = learned.support.feasible_like(jnp.ones(learned.batch_shape + learned.event_shape))
    estimate = estimate_log_normalizer(learned, KEY)
    expected = jax.jit(lambda x: learned.log_prob(x) - exact.log_prob(x))(x)
    assert estimate.log_normalizer.shape == learned.batch_shape
    error = np.abs(estimate.log_normalizer - expected)
    assert np.all(error < 0.05)
    assert np.all(error < 5 * estimate.standard_error + 1e-3)
    assert np.all(estimate.ess > 100)


def test_a_normalized_copy_is_one_everywhere():
    learned = KNOWN["energy"].make()
    exact = KNOWN["energy"].exact()
    x = exact.sample(KEY, (20,))
    log_z = float(learned.log_prob(x[0]) - exact.log_prob(x[0]))
    normalized = learned.with_log_normalizer(log_z)
    assert normalized.normalized
    assert not learned.normalized
    np.testing.assert_allclose(normalized.log_prob(x), exact.log_prob(x), rtol=1e-5)

    def model(log_normalizer):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        d = EnergyDistribution(lambda x, c: 0.5 * jnp.sum((x - c) ** 2), (2,), condition=mean[None])
        if log_normalizer is not None:
            d = d.with_log_normalizer(log_normalizer)
        numpyro.sample("x", d, obs=jnp.zeros(2))

    with pytest.raises(DoublyIntractableError):
        check_model(model, None)
    check_model(model, np.log(2 * np.pi))
    values = log_likelihood(model, {"mean": jnp.array([0.0, 1.0])}, np.log(2 * np.pi))["x"]
    np.testing.assert_allclose(values, [-np.log(2 * np.pi), -np.log(2 * np.pi) - 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lambda: NormalizedEnergy(EnergyMLP(4, width=4, key=KEY)), (4,)),
        (lambda: InnerProductEnergy(ScoreMLP(4, width=4, key=KEY)), (4,)),
        (lambda: ConvEnergy((2, 2), width=4, levels=1, key=KEY), (2, 2)),
    ],
    ids=["constant", "inner product", "image"],
)
def test_particles_start_at_the_base_inside(network, shape):
    """Data of another scale: from a standard normal, hardly a weight would be effective."""
    data = 100.0 + 0.01 * jax.random.normal(KEY, (500, *shape))
    learned = EnergyDistribution(network().fit_base(data), shape)
    estimate = estimate_log_normalizer(learned, KEY, num_temperatures=3)
    assert estimate.ess > 990
    base = learned.network.base
    x = base.mean.reshape(shape)
    np.testing.assert_allclose(
        estimate.log_normalizer, learned.log_prob(x) + base.log_normalizer, atol=0.02
    )


def test_with_log_normalizer_checks_its_shape():
    with pytest.raises(ValueError, match=r"each member of the batch_shape \(3,\)"):
        KNOWN["energy_conditional"].make().with_log_normalizer(jnp.zeros(2))


def test_few_effective_weights_are_told():
    far = EnergyDistribution(lambda x: 50.0 * jnp.sum((x - 10.0) ** 2), (4,))
    with pytest.warns(UserWarning, match="weights are effective.*raise num_temperatures"):
        estimate_log_normalizer(far, KEY, num_temperatures=2, num_moves=1)


def test_weights_that_are_not_finite():
    nan = EnergyDistribution(lambda x: jnp.nan * jnp.sum(x), (2,))
    with pytest.raises(FloatingPointError, match="a weight is not finite"):
        estimate_log_normalizer(nan, KEY, num_temperatures=2)
    nowhere = EnergyDistribution(lambda x: jnp.inf + 0.0 * jnp.sum(x), (2,))
    with pytest.raises(FloatingPointError, match="all weights are zero"):
        estimate_log_normalizer(nowhere, KEY, num_temperatures=1)


def test_arguments():
    with pytest.raises(TypeError, match="takes an EnergyDistribution or a ScoreDistribution"):
        estimate_log_normalizer(dist.Normal(0.0, 1.0), KEY)
    d = ScoreDistribution(lambda x: -x, (2,))
    with pytest.raises(ValueError, match="num_particles must be an integer of at least 2"):
        estimate_log_normalizer(d, KEY, num_particles=1)
