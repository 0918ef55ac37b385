"""Contracts of the exchange algorithm under both loops, and what it says of approximate draws.

It is not among the kernels of ``tests.cases``: those take a ``potential_fn``, and one gradient of
it a step, and this one takes neither.
"""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

from numpyro_score import infer
from numpyro_score.diagnostics import from_numpyro
from numpyro_score.distributions import EnergyDistribution
from numpyro_score.infer import Exchange
from numpyro_score.infer._kernel_options import kernel_options
from numpyro_score.samplers import Langevin
from tests.infer.exchange_models import (
    RATE,
    SHAPE,
    SHORT,
    Y,
    condition_of,
    draw_normal,
    draw_tilted,
    precision_model,
    run,
)
from tests.statistics import Moments, assert_recovers


@pytest.mark.parametrize("chain_method", ["sequential", "vectorized"])
@pytest.mark.parametrize("mcmc_cls", [MCMC, infer.MCMC], ids=["numpyro", "ours"])
def test_chain_methods_of_both_loops(mcmc_cls, chain_method):
    kernel = Exchange(precision_model, {"y": draw_normal})
    fields = ("accept_prob", "potential_energy", "adapt_state.step_size")
    mcmc = run(
        kernel, Y, mcmc_cls=mcmc_cls, chain_method=chain_method, extra_fields=fields, **SHORT
    )
    draws = mcmc.get_samples(group_by_chain=True)["theta"]
    assert draws.shape == (2, 30)
    assert len(np.unique(draws)) > 6
    extra = mcmc.get_extra_fields(group_by_chain=True)
    assert np.ptp(extra["adapt_state.step_size"], axis=1).max() == 0, "fixed after warm-up"
    # The potential of the state is that of its position, also after a refusal: without Z.
    theta = np.asarray(draws, np.float64)
    log_p = SHAPE * np.log(theta) - (RATE + 0.5 * np.sum(Y**2)) * theta  # and a constant
    rest = -np.asarray(extra["potential_energy"]) - log_p
    np.testing.assert_allclose(rest, rest[0, 0], atol=1e-3)


def test_one_program_serves_a_second_data_set_and_a_thawed_kernel():
    mcmc = run(Exchange(precision_model, {"y": draw_normal}), Y, **SHORT | {"num_samples": 2000})
    for scale in (1.0, 10.0):
        mcmc.run(random.key(0), Y * scale)
        mean = (SHAPE + 1.5) / (RATE + 0.5 * np.sum((scale * Y) ** 2))
        assert abs(mcmc.get_samples()["theta"].mean() / mean - 1) < 0.2
    thawed = pickle.loads(pickle.dumps(mcmc))
    thawed.run(random.key(0), Y * scale)
    np.testing.assert_array_equal(thawed.get_samples()["theta"], mcmc.get_samples()["theta"])


def test_a_kernel_that_has_run_is_the_same_and_its_samplers_tell_it_apart():
    kernel = Exchange(precision_model, {"y": draw_normal})
    before = kernel_options(kernel)
    kernel.init(random.key(0), 10, None, (Y,), {})
    assert kernel_options(kernel) == before
    assert kernel_options(Exchange(precision_model, {"y": draw_tilted})) != before


def test_no_key_is_used_twice(monkeypatch):
    used = []

    def note(key):
        used.append(tuple(np.asarray(random.key_data(key)).tolist()))

    def draw(rng_key, distribution):
        if not isinstance(rng_key, jax.core.Tracer):  # as in `init`, which looks at shapes
            note(rng_key)
        return draw_normal(rng_key, distribution)

    kernel = Exchange(precision_model, {"y": draw})
    state = kernel.init(random.key(0), 0, None, (Y,), {})
    transition = Exchange._transition
    monkeypatch.setattr(
        Exchange,
        "_transition",
        lambda self, rng_key, *args: note(rng_key) or transition(self, rng_key, *args),
    )
    for _ in range(3):
        note(state.rng_key)
        state = kernel.sample(state, (Y,), {})
    assert len(set(used)) == len(used) == 9


def test_a_model_without_an_unknown_normalizer_is_a_random_walk():
    def model():
        numpyro.sample("x", EnergyDistribution(lambda x: 0.5 * jnp.sum((x - 3) ** 2), (2,)))

    draws = run(Exchange(model), num_samples=8000).get_samples(group_by_chain=True)["x"]
    assert_recovers(draws, Moments(np.full(2, 3.0), np.ones(2)))


def test_rows_without_a_plate_a_mask_and_two_sites():
    """Data are drawn in the shape in which they were observed, also where it broadcasts."""
    shapes = {}

    def model(y, m):
        theta = numpyro.sample("theta", dist.Gamma(2.0, 1.0))
        energy = lambda y, theta: 0.5 * theta * jnp.sum(y**2)  # noqa: E731
        d = EnergyDistribution(energy, (2,), condition=theta, condition_event_dim=0)
        numpyro.sample("rows", d, obs=y)
        numpyro.sample("masked", d.expand([3]).mask(m), obs=y[0])
        numpyro.sample("constant", EnergyDistribution(lambda x: x @ x, (2,)), obs=y[0, 0])

    def draw(name):
        def fn(rng_key, distribution):
            shapes[name] = distribution.shape()
            return draw_normal(rng_key, distribution)

        return fn

    y, mask = jnp.ones((4, 3, 2)), jnp.array([True, False, True])
    kernel = Exchange(model, {name: draw(name) for name in ("rows", "masked")})
    mcmc = run(kernel, y, mask, num_samples=8000)
    assert shapes == {"rows": (4, 3, 2), "masked": (3, 2)}
    shape, rate = 2.0 + 0.5 * (24 + 4), 1.0 + 0.5 * (24 + 4)
    exact = Moments(np.asarray(shape / rate), np.asarray(np.sqrt(shape) / rate))
    assert_recovers(mcmc.get_samples(group_by_chain=True)["theta"], exact)


# -- approximate draws, and lost ones ----------------------------------------------------------


def test_langevin_draws_are_told_to_be_approximate():
    exact = Exchange(precision_model, {"y": draw_normal})
    assert repr(exact) == "Exchange(precision_model, diagonal metric)"
    short = Langevin(num_steps=20, step_size=1.0, adapt_step_size=False)

    def model(y):
        precision_model(y, sampler=short)

    mcmc = run(Exchange(model), Y, **SHORT | {"num_samples": 1000})
    assert "biased: auxiliary data by finite Langevin runs" in repr(mcmc.sampler)
    attributes = from_numpyro(mcmc)["posterior"].attrs
    assert attributes["biased"] == "auxiliary data by finite Langevin runs"
    assert attributes["kernel"] == repr(mcmc.sampler)
    # Not far off here, all the same.
    assert abs(mcmc.get_samples()["theta"].mean() / (4.5 / (2 + np.sum(Y**2) / 2)) - 1) < 0.25


def test_lost_draws_refuse_the_proposal_and_count_as_diverging():
    mean = (SHAPE + len(Y) / 2) / (RATE + np.sum(Y**2) / 2)

    def lost(rng_key, distribution):
        x = draw_normal(rng_key, distribution)
        return x.at[0].set(jnp.where(condition_of(distribution) > mean, jnp.nan, x[0]))

    # From below, where every chain stays: no draw of data from above is there to accept.
    kernel = Exchange(precision_model, {"y": lost})
    options = SHORT | {"num_samples": 300, "num_warmup": 200}
    mcmc = run(kernel, Y, init_params={"theta": jnp.log(jnp.full(2, mean / 2))}, **options)
    extra, theta = mcmc.get_extra_fields(), mcmc.get_samples()["theta"]
    assert 0 < extra["diverging"].sum() < len(theta)
    assert not extra["accept_prob"][extra["diverging"]].any()
    assert (np.asarray(theta) <= mean).all()
    assert len(np.unique(theta)) > 20
    assert jnp.isfinite(mcmc.last_state.potential_energy).all()
