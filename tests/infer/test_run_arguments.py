"""Arguments of the model: as precise as NumPyro leaves them, and never those of another run."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import infer as theirs

from numpyro_score.infer import MALA, MCMC
from numpyro_score.infer._run_arguments import RunArguments

OPTIONS = {"num_warmup": 300, "num_samples": 300, "progress_bar": False}
in_float32 = pytest.mark.skipif(jax.config.jax_enable_x64, reason="float64 holds these numbers")


def traced(*args):
    """How many of the arguments are traced."""
    return len(RunArguments(args, {}).arrays)


# -- precision ---------------------------------------------------------------------------------

DAYS = 2_459_000.1 + np.linspace(0.0, 1.0, 50)  # float32 knows quarters of a day there


@in_float32
def test_dates_far_from_zero_keep_their_differences():
    y = 3 * (DAYS - DAYS.mean()) + 0.01 * np.random.default_rng(0).normal(size=50)

    def model(t, y):
        slope = numpyro.sample("slope", dist.Normal(0.0, 10.0))
        numpyro.sample("y", dist.Normal(slope * (t - t.mean()), 0.01).to_event(1), obs=y)

    means = []
    for cls in (MCMC, theirs.MCMC):
        mcmc = cls(MALA(model), **OPTIONS)
        mcmc.run(random.key(0), DAYS, y)
        means.append(float(mcmc.get_samples()["slope"].mean()))
    # The posterior's standard deviation is .005; in float32 the slope is off by tenths.
    np.testing.assert_allclose(means, 3.0, atol=0.03)


@in_float32
@pytest.mark.parametrize(
    ("array", "is_traced"),
    [
        (np.linspace(0.0, 1.0, 50), True),
        (np.linspace(1990.0, 2020.0, 50), True),
        (np.full(5, 2_459_000.1), True),  # no differences to lose
        (np.array([np.nan, np.inf, 1.0]), True),
        (np.empty((0, 3)), True),
        (np.array(2.5), True),
        (np.array([1, 2**31 - 1]), True),
        (DAYS, False),
        (-DAYS, False),
        (np.append(DAYS, np.nan), False),
        (np.full(3, np.nan), True),
        (np.stack([DAYS, np.linspace(-1e9, 1e9, 50)], 1), False),
        (np.stack([DAYS, np.linspace(-1e9, 1e9, 50)], 0), False),
        (np.array([0, 2**31]), False),
        (DAYS.astype(np.float32), True),
    ],
)
def test_what_float32_does_not_hold_is_a_constant(array, is_traced):
    assert traced(array) == is_traced


def test_constants_of_other_contents_have_another_key():
    first, same, other = (RunArguments((x,), {}) for x in (DAYS, DAYS.copy(), DAYS + 1))
    assert first.key() == same.key()
    assert first.digest() == same.digest() != other.digest()
    if not first.arrays:
        assert first.key() != other.key()


def test_the_order_of_fields_in_a_process_does_not_count(monkeypatch):
    """NumPyro flattens a distribution in the order of a set of names."""
    digests = []
    for names in (("loc", "scale"), ("scale", "loc")):
        fields = classmethod(lambda _, names=names: names)
        monkeypatch.setattr(dist.Normal, "gather_pytree_data_fields", fields)
        digests.append(RunArguments((dist.Normal(1.0, 2.0), jnp.ones(3)), {}).digest())
    assert digests[0] == digests[1]
    assert RunArguments((dist.Normal(2.0, 1.0), jnp.ones(3)), {}).digest() != digests[0]


# -- contents ----------------------------------------------------------------------------------


class Table:
    """Compared by identity, as objects are that say nothing else."""

    def __init__(self, y):
        self.y = y


@pytest.mark.parametrize("make", [lambda y: types.SimpleNamespace(y=y), Table])
def test_an_argument_that_was_changed_in_place_is_read_again(make):
    def model(data):
        mu = numpyro.sample("mu", dist.Normal(0.0, 100.0))
        numpyro.sample("y", dist.Normal(mu, 0.1).expand([20]).to_event(1), obs=data.y)

    data = make(jnp.zeros(20))
    mcmc = MCMC(MALA(model), **OPTIONS)
    mcmc.run(random.key(0), data)
    data.y = jnp.full(20, 5.0)
    mcmc.run(random.key(1), data)
    np.testing.assert_allclose(mcmc.get_samples()["mu"].mean(), 5.0, atol=0.1)


def test_functions_and_strings_may_be_compared():
    assert (
        RunArguments((jnp.tanh, "a", len), {}).key() == RunArguments((jnp.tanh, "a", len), {}).key()
    )


def test_a_random_key_is_an_argument_as_any_other():
    def model(key, y):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        mean = b * random.normal(key, (3,))
        numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)

    mcmc = MCMC(MALA(model), num_warmup=5, num_samples=5, progress_bar=False)
    mcmc.run(random.key(0), random.key(1), jnp.ones(3))
    assert mcmc.get_samples()["b"].shape == (5,)
