"""The most probable event: the right one of several, in ``y`` itself, and told when not found."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from numpyro.distributions import constraints

from numpyro_score.distributions import EnergyDistribution, ScoreDistribution

KEY = random.key(0)


def double_well(x):
    """Minima near ±1, of which the left one is lower by about 0.4."""
    return jnp.sum((x**2 - 1) ** 2 + 0.2 * x)


def lowest(energy, low=-2.0, high=2.0):
    """Argument of the minimum on a fine grid."""
    grid = np.linspace(low, high, 40_001)
    return grid[np.argmin(np.asarray(jax.vmap(energy)(grid[:, None])))]


def ends_of_single_starts(d, num=20):
    """Where each of several searches ends, compiled once."""
    return jax.jit(jax.vmap(lambda key: d.mode(key, num_starts=1)[0]))(random.split(KEY, num))


def test_lower_of_two_wells():
    mode = EnergyDistribution(double_well, (1,)).mode(KEY)
    np.testing.assert_allclose(mode, [lowest(double_well)], atol=2e-3)


def test_a_single_start_can_end_in_the_higher_well():
    """Why there are several: the control of the test above."""
    ends = ends_of_single_starts(EnergyDistribution(double_well, (1,)))
    assert (ends > 0.5).any()
    assert (ends < -0.5).any()


def test_each_condition_has_its_own_mode():
    condition = jnp.array([[[-1.0, 0.0], [2.0, 1.0]], [[3.0, 0.0], [0.0, -4.0]]])
    d = ScoreDistribution(lambda y, x: -2 * (y - x), (2,), condition=condition, num_nodes=2)
    mode = d.mode(KEY, num_starts=2)
    assert mode.shape == (2, 2, 2)
    np.testing.assert_allclose(mode, condition, atol=2e-3)


def test_lower_well_of_each_condition():
    """The best start is chosen for each member of the batch, not for all at once."""
    energy = lambda y, c: jnp.sum((y**2 - 1) ** 2 + c * y)  # noqa: E731
    tilt = jnp.array([[0.3], [-0.3], [0.3]])
    mode = EnergyDistribution(energy, (1,), condition=tilt).mode(KEY)
    left = lowest(lambda y: energy(y, 0.3))
    np.testing.assert_allclose(mode, left * jnp.sign(tilt), atol=2e-3)


@pytest.mark.parametrize(
    ("energy", "support", "expected"),
    [
        # Gamma(3, 2) has its mode at (3 - 1) / 2; with a Jacobian it would be 3 / 2.
        (lambda x: jnp.sum(2 * x - 2 * jnp.log(x)), constraints.positive, [1.0] * 3),
        # Beta(2, 4) at 1 / 4, with a Jacobian at 1 / 3, here on (0, 2).
        (
            lambda x: -jnp.sum(jnp.log(x / 2) + 3 * jnp.log1p(-x / 2)),
            constraints.interval(0.0, 2.0),
            [0.5] * 3,
        ),
        # Dirichlet(2, 3, 4) at (1, 2, 3) / 6.
        (
            lambda x: -jnp.sum(jnp.array([1.0, 2.0, 3.0]) * jnp.log(x)),
            constraints.simplex,
            [1 / 6, 2 / 6, 3 / 6],
        ),
    ],
    ids=["positive", "interval", "simplex"],
)
def test_mode_on_a_support_is_inside_and_without_a_jacobian(energy, support, expected):
    d = EnergyDistribution(energy, (3,), support=support)
    mode = d.mode(KEY)
    assert bool(d.support(mode).all())
    np.testing.assert_allclose(mode, expected, atol=2e-3)


def test_under_jit_it_is_the_same():
    d = EnergyDistribution(double_well, (1,))
    np.testing.assert_allclose(jax.jit(lambda d, k: d.mode(k))(d, KEY), d.mode(KEY), atol=2e-3)


def test_a_search_cut_short_warns_with_what_to_do():
    d = EnergyDistribution(lambda x: jnp.sum(jnp.cosh(x - 5)), (3,))
    with pytest.warns(UserWarning, match=r"after num_steps=1 with a gradient of .* raise num_ste"):
        d.mode(KEY, num_steps=1)


def test_an_energy_without_a_lower_end_warns():
    d = EnergyDistribution(lambda x: jnp.sum(x), (1,))
    with pytest.warns(UserWarning, match=r"gradient of 1\.0e\+00 per dimension"):
        d.mode(KEY)


def test_an_energy_that_is_nowhere_finite_is_refused():
    d = EnergyDistribution(lambda x: jnp.nan * jnp.sum(x), (2,))
    with pytest.raises(FloatingPointError, match="not finite at the end of any start"):
        d.mode(KEY)


def test_starts_that_end_without_a_finite_energy_lose():
    energy = lambda x: jnp.sum(jnp.where(x > 0.5, jnp.nan, (x + 0.1) ** 2))  # noqa: E731
    d = EnergyDistribution(energy, (1,))
    np.testing.assert_allclose(d.mode(KEY), [-0.1], atol=2e-3)
    ends = ends_of_single_starts(d)
    assert not (jnp.abs(ends + 0.1) < 2e-3).all(), "some starts are lost"


@pytest.mark.parametrize("option", [{"num_starts": 0}, {"num_steps": 2.5}, {"num_steps": True}])
def test_counts_are_checked(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1"):
        EnergyDistribution(double_well, (1,)).mode(KEY, **option)


@pytest.mark.parametrize("tol", [0.0, -1.0, float("nan")])
def test_tolerance_is_checked(tol):
    with pytest.raises(ValueError, match="tol must be a finite number above 0"):
        EnergyDistribution(double_well, (1,)).mode(KEY, tol=tol)
