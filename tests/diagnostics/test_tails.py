"""Tails that a density has, and that it cannot have."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from numpyro_score.diagnostics import tail_check
from numpyro_score.distributions import EnergyDistribution, ScoreDistribution

KEY = jax.random.key(0)
DATA = jax.random.normal(jax.random.key(1), (300, 3)) * jnp.array([1.0, 10.0, 0.1]) + 5.0


def gaussian(x):
    return -(x - 5.0) / jnp.array([1.0, 100.0, 0.01])


def check(score, data=DATA, **options):
    return tail_check(score, data, key=KEY, num_rays=100, **options)


@pytest.mark.parametrize("name", ["Gaussian", "Student's t", "Cauchy", "Laplace"])
def test_proper_densities_pass(name):
    z = lambda x: (x - 5.0) / jnp.array([1.0, 10.0, 0.1])  # noqa: E731
    log_density = {
        "Gaussian": lambda x: -0.5 * jnp.sum(z(x) ** 2),
        "Student's t": lambda x: -0.5 * (5 + 3) * jnp.log1p(jnp.sum(z(x) ** 2) / 5),
        "Cauchy": lambda x: -0.5 * (1 + 3) * jnp.log1p(jnp.sum(z(x) ** 2)),
        "Laplace": lambda x: -jnp.sum(jnp.abs(z(x))),
    }[name]
    found = check(EnergyDistribution(lambda x: -log_density(x), (3,)))
    assert found.value == 0
    assert 0 < found.error < 0.02
    assert "falls off" in repr(found)


def test_improper_tails_fail_and_say_where():
    flat = check(lambda x: jnp.zeros_like(x))
    assert flat.improper == flat.outward == 1
    assert flat.nearest == pytest.approx(2.0)
    # As slow as r⁻²: no integral in three dimensions, though the score points back.
    slow = check(lambda x: -2 * (x - 5.0) / (1e-6 + jnp.sum((x - 5.0) ** 2)))
    assert slow.improper == 1
    assert slow.outward == 0
    # One of two directions of the second axis, away beyond a hundred.
    half = check(lambda x: jnp.where(x[1] > 100, 1.0, gaussian(x)))
    assert 0.1 < half.value < 0.6
    assert half.outward > 0
    assert half.nearest > 2
    assert "no integral" in repr(half)
    assert check(lambda x: gaussian(x) / jnp.where(x[1] > 1e2, 0.0, 1.0) * 0).value > 0  # NaN
    assert check(lambda x: -gaussian(x)).value == 1


@pytest.mark.parametrize(
    "density",
    [dist.Gamma(0.5, 1.0), dist.HalfCauchy(1.0), dist.Dirichlet(jnp.ones(3))],
    ids=lambda density: type(density).__name__,
)
def test_heavy_tails_on_a_support_pass_as_far_as_numbers_go(density):
    found = check(density, density.sample(KEY, (500,)))
    assert found.value == 0
    assert 2 < found.reach < 10


def test_constraints_and_conditions():
    positive = dist.Gamma(2.0, 1.0).expand([2]).to_event(1)
    data = positive.sample(KEY, (100,))
    assert check(positive, data).value == 0
    improper = dist.ImproperUniform(dist.constraints.positive, (), (2,))
    assert check(improper, data).improper > 0
    condition = jnp.linspace(0.1, 2.0, 300)[:, None]
    good = ScoreDistribution(lambda x, c: c * gaussian(x), (3,), condition=condition)
    bad = ScoreDistribution(lambda x, c: (1 - c) * gaussian(x), (3,), condition=condition)
    assert check(good).value == 0
    # 1 - c is negative for 0.53 of the conditions; of 100 rays, within 5 standard errors.
    assert abs(check(bad).value - 0.53) < 0.25


def test_images_and_chains():
    data = jax.random.normal(KEY, (2, 30, 2, 2))
    found = check(dist.Normal(jnp.zeros((2, 2)), 1).to_event(2), data)
    assert found.value == 0
    np.testing.assert_allclose(found.reach, 10.0)


def test_refusals():
    with pytest.raises(ValueError, match="reach must be a number above 2"):
        check(gaussian, reach=1.0)
    with pytest.raises(ValueError, match="n of at least 20"):
        check(gaussian, DATA[:10])
    with pytest.raises(ValueError, match="coordinate 1 of the data is constant"):
        check(gaussian, DATA.at[:, 1].set(0.0))
    with pytest.raises(ValueError, match="the shape of a draw"):
        check(jnp.sum)
