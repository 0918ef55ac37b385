"""Bad input of a distribution: what was expected, what came, and how to mend it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from numpyro.distributions import constraints

from numpyro_score.distributions import EnergyDistribution, ScoreDistribution
from numpyro_score.samplers import Langevin, langevin


def energy(x, condition=0.0):
    """One number an event."""
    return 0.5 * jnp.sum((x - condition) ** 2)


def score(x, condition=0.0):
    """The shape of an event."""
    return condition - x


BOTH = pytest.mark.parametrize(
    ("cls", "network"), [(EnergyDistribution, energy), (ScoreDistribution, score)]
)


@pytest.mark.parametrize(
    ("cls", "network", "event_shape", "message"),
    [
        (EnergyDistribution, score, (3,), r"returned the shape \(3,\)\. .*use ScoreDistribution"),
        (EnergyDistribution, lambda x: x[:2], (3,), r"returned the shape \(2,\)\.$"),
        (ScoreDistribution, energy, (3,), r"it returned \(\)\. .*use EnergyDistribution"),
        (ScoreDistribution, lambda x: x[:2], (3,), r"it returned \(2,\)\.$"),
        (ScoreDistribution, score, (), r"use event_shape=\(1,\)"),
    ],
)
def test_network_with_the_wrong_output(cls, network, event_shape, message):
    with pytest.raises(ValueError, match=message):
        cls(network, event_shape)


@BOTH
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"event_shape": 2}, TypeError, r"event_shape must be a tuple of integers .* got 2"),
        ({"event_shape": None}, TypeError, "event_shape must be a tuple"),
        ({"event_shape": (2.0,)}, TypeError, r"a tuple of integers .* got \(2\.0,\)"),
        ({"event_shape": "2"}, TypeError, "a tuple of integers .* got '2'"),
        ({"event_shape": ("2",)}, TypeError, "a tuple of integers"),
        ({"event_shape": (True,)}, TypeError, "a tuple of integers"),
        ({"event_shape": (2, 0)}, ValueError, r"positive sizes only, got \(2, 0\)"),
        ({"condition": 1.0}, ValueError, r"at least condition_event_dim=1 .*got the shape \(\)"),
        (
            {"condition": np.ones(2), "condition_event_dim": 2},
            ValueError,
            r"at least condition_event_dim=2 axes, got the shape \(2,\)",
        ),
        ({"condition_event_dim": -1}, ValueError, "condition_event_dim must be an integer of at"),
        ({"log_normalizer": np.zeros(3)}, ValueError, r"batch_shape \(\), got the shape \(3,\)"),
        (
            {"condition": np.ones((3, 2)), "log_normalizer": np.zeros(2)},
            ValueError,
            r"batch_shape \(3,\), got the shape \(2,\)",
        ),
        (
            # It would broadcast, and add an axis that the distribution does not have.
            {"condition": np.ones((3, 2)), "log_normalizer": np.zeros((4, 3))},
            ValueError,
            r"batch_shape \(3,\), got the shape \(4, 3\)",
        ),
        ({"log_normalizer": np.nan}, ValueError, "log_normalizer must be finite, got nan"),
        ({"log_normalizer": 1j}, TypeError, "log_normalizer must be real"),
        ({"sampler": 100}, TypeError, "sampler must be a .*Langevin or None, got int"),
        ({"sampler": Langevin}, TypeError, "sampler must be a .*Langevin or None, got type"),
        ({"support": "real"}, TypeError, "support must be a constraint"),
    ],
)
def test_bad_arguments_of_either(cls, network, options, error, message):
    with pytest.raises(error, match=message):
        cls(network, **{"event_shape": (2,)} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchor": np.zeros(3)}, r"anchor must have the event_shape \(2,\), got \(3,\)"),
        ({"anchor": np.zeros((4, 2))}, r"got \(4, 2\)"),
        ({"anchor": 0.0}, r"got \(\)"),
        ({"anchor": np.array([0.0, np.nan])}, "anchor must lie inside the support"),
        (
            {"anchor": np.array([1.0, -1.0]), "support": constraints.positive},
            r"anchor must lie inside the support .*got \[ 1\. -1\.\]",
        ),
        ({"num_nodes": 1}, "num_nodes must be an integer of at least 2, got 1"),
        ({"num_nodes": 2.0}, "num_nodes must be an integer"),
        ({"num_nodes": True}, "num_nodes must be an integer"),
    ],
)
def test_bad_arguments_of_a_score(options, message):
    with pytest.raises(ValueError, match=message):
        ScoreDistribution(score, (2,), **options)


@pytest.mark.parametrize("network", ["energy", 3.0, EnergyDistribution])
def test_what_is_no_network(network):
    with pytest.raises(TypeError, match="a network must be an Equinox module, a function"):
        EnergyDistribution(network, (2,))


@BOTH
@pytest.mark.parametrize(
    ("lead", "fits"), [((), True), ((3,), True), ((4, 1), True), ((2,), False)]
)
def test_leading_axes_that_do_not_fit_the_condition(cls, network, lead, fits):
    d = cls(network, (2,), condition=np.ones((3, 2)))
    value = jnp.zeros((*lead, 2))
    if fits:
        assert d.log_prob(value).shape == jnp.broadcast_shapes(lead, (3,))
    else:
        with pytest.raises(ValueError, match=r"leading shape \(2,\).* batch_shape \(3,\)"):
            d.log_prob(value)


@BOTH
@pytest.mark.parametrize("method", ["log_prob", "score"])
@pytest.mark.parametrize("shape", [(3,), (), (5, 2, 1)])
def test_values_of_the_wrong_event_shape(cls, network, method, shape):
    with pytest.raises(ValueError, match=r"value must have the shape \(\.\.\., 2\)"):
        getattr(cls(network, (2,)), method)(jnp.zeros(shape))


@pytest.mark.parametrize(
    "d",
    [EnergyDistribution(energy, (2,)), ScoreDistribution(lambda x: -x, (2,))],
    ids=lambda d: type(d).__name__,
)
def test_integers_are_taken_for_the_numbers_they_are(d):
    value = jnp.array([1, 2])
    np.testing.assert_allclose(d.log_prob(value), -2.5, rtol=1e-5)
    np.testing.assert_allclose(d.score(value), [-1.0, -2.0], rtol=1e-5)
    assert jnp.issubdtype(d.score(value).dtype, jnp.floating)


@BOTH
def test_without_a_sampler_the_way_out_is_told(cls, network):
    with pytest.raises(NotImplementedError, match=r"MALA.*or.*sampler=.*Langevin\(\)") as caught:
        cls(network, (2,)).sample(random.key(0))
    assert caught.type is NotImplementedError, "NumPyro's init strategies rely on the type"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be an integer of at least 1, got 0"),
        ({"num_steps": 1.5}, "num_steps must be an integer"),
        ({"step_size": 0.0}, "step_size must be a finite number above 0, got 0.0"),
        ({"step_size": np.inf}, "step_size must be a finite"),
        ({"step_size": "0.1"}, "step_size must be a finite"),
    ],
)
def test_bad_arguments_of_the_sampler(options, message):
    with pytest.raises(ValueError, match=message):
        Langevin(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": -1.0}, "step_size must be a finite number above 0, got -1.0"),
        ({"num_steps": -1}, "num_steps must be an integer of at least 0, got -1"),
    ],
)
def test_bad_arguments_of_a_langevin_run(options, message):
    options = {"step_size": 0.1, "num_steps": 1} | options
    with pytest.raises(ValueError, match=message):
        langevin(random.key(0), lambda x: -(x**2), jnp.zeros(()), **options)
