import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

from numpyro_score.distributions import Dequantized, dequantize

BASE = dist.Normal(jnp.array([0.4, 0.6]), 0.2).to_event(1)
LEVELS = 8


def exact_log_prob(value):
    edges = dist.Normal(jnp.array([0.4, 0.6]), 0.2).cdf
    mass = edges((value + 1) / LEVELS) - edges(value / LEVELS)
    return jnp.log(mass).sum(-1)


def every_value():
    return jnp.stack(jnp.meshgrid(jnp.arange(LEVELS), jnp.arange(LEVELS)), -1).reshape(-1, 2)


def test_bound_is_below_the_probability_and_closes_with_more_points():
    values = every_value()
    exact = exact_log_prob(values)
    gaps = []
    for num_draws in (1, 1_000):
        d = Dequantized(BASE, LEVELS, num_draws=num_draws)
        gaps.append(float(jnp.sum(jnp.exp(exact) * (exact - d.log_prob(values)))))
    # Of 1,000 points the estimate has a relative error of about 1 % in each cell.
    assert gaps[0] > 0.01
    assert abs(gaps[1]) < 0.005


def test_draws_have_the_probabilities():
    draws = Dequantized(BASE, LEVELS).sample(jax.random.key(0), (50_000,))
    inside = (draws > 0) & (draws < LEVELS - 1)  # the ends hold what lies outside
    for value in every_value():
        if ((value > 0) & (value < LEVELS - 1)).all():
            found = float((draws == value).all(1).mean())
            mass = float(jnp.exp(exact_log_prob(value)))
            assert abs(found - mass) < 5 * np.sqrt(mass / 50_000) + 1e-4
    assert float(inside.all(1).mean()) > 0.8


def test_dequantized_values_stay_in_their_level():
    value = jnp.repeat(jnp.arange(256), 1_000)
    x = dequantize(jax.random.key(0), value, 256)
    assert bool((jnp.floor(256 * x) == value).all())
    assert x.dtype == jnp.result_type(float)


@pytest.mark.parametrize(("dtype", "num_levels"), [("uint8", 256), ("int8", 128)])
def test_bytes_stay_in_their_level(dtype, num_levels):
    value = jnp.repeat(jnp.arange(num_levels), 100)
    expected = dequantize(jax.random.key(0), value, num_levels)
    found = dequantize(jax.random.key(0), value.astype(dtype), num_levels)
    np.testing.assert_array_equal(found, expected)
    d = Dequantized(dist.Normal(0.5, 0.2), num_levels)
    np.testing.assert_array_equal(d.log_prob(value.astype(dtype)), d.log_prob(value))


def test_bits_per_dimension_of_a_uniform_density():
    d = Dequantized(dist.Uniform(jnp.zeros((2, 3)), 1.0).to_event(2), 256)
    bits = d.bits_per_dimension(jnp.zeros((5, 2, 3), int))
    np.testing.assert_allclose(bits, np.full(5, 8.0), rtol=1e-6)


def test_a_row_has_its_probability_in_any_batch():
    d = Dequantized(BASE, LEVELS, num_draws=2)
    rows = jnp.concatenate([every_value(), every_value()[:3]])
    together = d.log_prob(rows)
    np.testing.assert_allclose(together[-3:], together[:3], rtol=1e-6)
    np.testing.assert_allclose(together, jax.vmap(d.log_prob)(rows), rtol=1e-6)
    np.testing.assert_allclose(together[5], d.log_prob(rows[5]), rtol=1e-6)
    numbers = Dequantized(dist.Normal(0.4, 0.2), LEVELS)
    np.testing.assert_allclose(
        numbers.log_prob(jnp.arange(LEVELS))[5], numbers.log_prob(jnp.array(5)), rtol=1e-6
    )


def test_members_of_a_batch_of_densities_broadcast_with_rows():
    locs = jnp.array([[0.3, 0.5], [0.5, 0.5], [0.7, 0.5]])
    members = [dist.Normal(loc, 0.2).to_event(1) for loc in locs]
    d = Dequantized(dist.Normal(locs, 0.2).to_event(1), LEVELS, num_draws=2)
    assert d.batch_shape == (3,)
    rows = every_value()[:5]
    expected = jnp.stack([Dequantized(m, LEVELS, num_draws=2).log_prob(rows) for m in members], 1)
    np.testing.assert_allclose(d.log_prob(rows[:, None]), expected, rtol=1e-6)
    np.testing.assert_allclose(d.log_prob(rows[4]), expected[4], rtol=1e-6)
    np.testing.assert_allclose(d.log_prob(rows[2:]), jnp.diagonal(expected[2:]), rtol=1e-6)


def test_in_a_model_and_through_jit():
    d = Dequantized(BASE, LEVELS)

    def model(y):
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", d, obs=y)

    y = d.sample(jax.random.key(1), (4,))
    total = log_density(handlers.seed(model, 0), (y,), {}, {})[0]
    expected = jax.jit(lambda d, y: d.log_prob(y))(d, y).sum()
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_refusals():
    with pytest.raises(TypeError, match="base_dist must be a distribution"):
        Dequantized(3.0)
    with pytest.raises(ValueError, match="num_levels"):
        Dequantized(BASE, 1)
    with pytest.raises(ValueError, match="num_draws"):
        Dequantized(BASE, 4, num_draws=0)
