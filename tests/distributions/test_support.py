"""Supports of whole events, and the coordinates in which chains and searches start."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to

from numpyro_score.distributions import EnergyDistribution
from numpyro_score.distributions._support import event_support, is_real, standard_coordinates
from numpyro_score.networks import EnergyMLP


def linear(x):
    """An energy on any support."""
    return jnp.sum(x)


class NoBijection(constraints.Constraint):
    """A support that NumPyro cannot map the real numbers onto."""

    def __call__(self, x):
        return x > 0


@pytest.mark.parametrize(
    ("support", "error", "message"),
    [
        ("positive", TypeError, "a constraint of numpyro.distributions.constraints, got str"),
        (constraints.interval, TypeError, "got ABCMeta|got type"),
        (constraints.nonnegative_integer, ValueError, "support must be continuous"),
        (constraints.corr_cholesky, ValueError, "speaks of 2 axes at once, but event_shape has 1"),
        (NoBijection(), ValueError, "has no bijection from the real numbers"),
    ],
)
def test_supports_that_are_refused(support, error, message):
    with pytest.raises(error, match=message):
        EnergyDistribution(linear, (3,), support=support)


def test_a_support_of_events_needs_events():
    with pytest.raises(ValueError, match="speaks of 1 axes at once, but event_shape has 0"):
        EnergyDistribution(linear, (), support=constraints.simplex)


@pytest.mark.parametrize("event_dim", [0, 1, 2])
def test_a_constraint_on_numbers_is_lifted_to_events(event_dim):
    support = event_support(constraints.positive, event_dim)
    assert support.event_dim == event_dim
    x = jnp.ones((4, 2, 3)).at[1, 0, 0].set(-1.0)
    inside = support(x)
    assert inside.shape == x.shape[: 3 - event_dim], "one answer, and so one Jacobian, an event"
    assert not inside.all()


def test_a_constraint_on_events_stays():
    assert event_support(constraints.simplex, 1) is constraints.simplex
    assert event_support(None, 0) is constraints.real
    assert event_support(constraints.simplex, 2).event_dim == 2


def test_real_is_told_from_half_lines():
    assert is_real(event_support(None, 0))
    assert is_real(event_support(None, 2))
    assert not is_real(event_support(constraints.positive, 1))
    assert not is_real(event_support(constraints.simplex, 1))


def test_bounds_are_data_of_the_distribution_under_jit():
    """Bounds frozen at the first trace would silently answer for other bounds."""
    traces = []

    @jax.jit
    def constrained_and_inside(d, v, x):
        traces.append(1)
        return biject_to(d.support)(v), d.support(x)

    def make(low, high):
        support = constraints.interval(jnp.array(low), jnp.array(high))
        return EnergyDistribution(linear, (2,), support=support)

    v, x = jnp.zeros(2), jnp.array([1.0, 11.0])
    middle, inside = constrained_and_inside(make([0.0, 10.0], [2.0, 14.0]), v, x)
    np.testing.assert_allclose(middle, [1.0, 12.0], rtol=1e-6)
    assert bool(inside)
    middle, inside = constrained_and_inside(make([2.0, 10.0], [4.0, 12.0]), v, x)
    np.testing.assert_allclose(middle, [3.0, 11.0], rtol=1e-6)
    assert not bool(inside)
    assert len(traces) == 1


def fitted_network():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(500, 2)) @ np.array([[2.0, 1.0], [0.0, 0.5]]) + [5.0, -3.0]
    return EnergyMLP(2, width=8, key=jax.random.key(0)).fit_base(data)


def test_standard_coordinates_are_those_of_the_gaussian_base():
    network = fitted_network()
    transform = standard_coordinates(network, event_support(None, 1), (2,))
    np.testing.assert_allclose(transform(jnp.zeros(2)), network.base.mean, rtol=1e-5)
    root = jax.jacfwd(transform)(jnp.zeros(2))
    covariance = np.linalg.inv(np.asarray(network.base.precision, np.float64))
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-4)


def test_standard_coordinates_are_a_bijection_and_data_under_jit():
    transform, v = standard_coordinates(fitted_network(), event_support(None, 1), (2,)), jnp.ones(2)
    x = jax.jit(lambda transform, v: transform(v))(transform, v)
    back = jax.jit(lambda transform, x: transform.inv(x))(transform, x)
    np.testing.assert_allclose(back, v, rtol=1e-5)
    _, log_det = np.linalg.slogdet(jax.jacfwd(transform)(v))
    np.testing.assert_allclose(transform.log_abs_det_jacobian(v, x), log_det, rtol=1e-5)
    for copied in (jax.tree.map(jnp.copy, transform), pickle.loads(pickle.dumps(transform))):
        assert type(copied) is type(transform)
        np.testing.assert_allclose(copied(v), x, rtol=1e-6)


def test_without_a_base_or_on_a_support_they_are_the_bijection():
    network, v = fitted_network(), jnp.array([0.3, -2.0])
    positive = event_support(constraints.positive, 1)
    transform = standard_coordinates(network, positive, (2,))
    np.testing.assert_allclose(transform(v), jnp.exp(v), rtol=1e-6)
    transform = standard_coordinates(linear, event_support(None, 1), (2,))
    np.testing.assert_array_equal(transform(v), v)
