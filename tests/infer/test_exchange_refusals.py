"""What the exchange algorithm cannot sample is refused at initialization."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS, DiscreteGibbs, Gibbs

from numpyro_score.distributions import EnergyDistribution
from numpyro_score.infer import MALA, DoublyIntractableError, Exchange, ModelError, check_model
from tests.infer.exchange_models import RATE, SHAPE, Y, draw_normal, precision_model, run
from tests.statistics import Moments, assert_recovers


def test_the_guard_still_refuses_for_all_others_and_names_the_way_out():
    for refuse in (
        lambda: check_model(precision_model, Y),
        lambda: MALA(precision_model).init(random.key(0), 1, None, (Y,), {}),
    ):
        with pytest.raises(DoublyIntractableError, match=r"Site 'y' .* 'theta'.*infer\.Exchange"):
            refuse()


def conditional(theta, **options):
    energy = lambda y, theta: 0.5 * theta * y**2  # noqa: E731
    return EnergyDistribution(energy, (), condition=theta, condition_event_dim=0, **options)


def latent_model(theta):
    numpyro.sample("y", conditional(theta))


def param_model(theta):
    numpyro.sample("y", conditional(theta * numpyro.param("p", 1.0)), obs=1.0)


def mask_model(theta):
    numpyro.sample("y", conditional(theta).mask(theta > 1), obs=1.0)


def support_model(theta):
    support = constraints.interval(0.0, theta)
    numpyro.sample("y", EnergyDistribution(lambda y: y**2, (), support=support), obs=0.1)


def mixture_model(theta):
    mixing = dist.Categorical(probs=jnp.array([0.5, 0.5]))
    components = [conditional(theta), dist.Normal(0.0, 1.0)]
    fn = dist.MixtureGeneral(mixing, components, support=constraints.real)
    numpyro.sample("y", fn, obs=1.0)


def scale_model(theta):
    with handlers.scale(scale=2.0):
        numpyro.sample("y", conditional(theta), obs=1.0)


def plate_model(theta):
    with numpyro.plate("rows", 10, subsample_size=2):
        numpyro.sample("y", conditional(theta), obs=jnp.ones(2))


def one_value_model(theta):
    with numpyro.plate("rows", 3):
        numpyro.sample("y", conditional(theta), obs=1.0)


def observed_model(theta):
    numpyro.sample("y", conditional(theta), obs=1.0)


def two_sites_model(theta):
    numpyro.sample("y", conditional(theta), obs=1.0)
    numpyro.sample("w", conditional(theta), obs=1.0)
    numpyro.sample("constant", conditional(1.0), obs=1.0)
    numpyro.sample("known", dist.Normal(0.0, theta), obs=1.0)


@pytest.mark.parametrize(
    ("body", "samplers", "error", "message"),
    [
        (latent_model, {}, DoublyIntractableError, "but 'y' is latent"),
        (param_model, {}, DoublyIntractableError, r"but \['p'\] are parameters"),
        (mask_model, {}, DoublyIntractableError, "Make mask and scale constants"),
        (support_model, {}, DoublyIntractableError, "does not know where it ends"),
        (mixture_model, {}, DoublyIntractableError, "Site 'y' mixes"),
        (scale_model, {}, ModelError, r"Site 'y' is scaled \(handlers.scale\)"),
        (plate_model, {}, ModelError, "'rows' subsamples 2 of 10"),
        (one_value_model, {}, ModelError, r"has the shape \(\), but its distribution .*\(3,\)"),
        (observed_model, {}, ModelError, r"samplers=\{'y': fn\}.*samplers.Langevin\(\)"),
        (two_sites_model, {"y": draw_normal}, ModelError, r"\['w'\] are missing"),
        (two_sites_model, {"z": draw_normal}, ValueError, "no sample site of this name"),
        (two_sites_model, {"theta": draw_normal}, ValueError, "it is latent"),
        (two_sites_model, {"known": draw_normal}, ValueError, "its distribution is normalized"),
        (two_sites_model, {"constant": draw_normal}, ValueError, "its normalizer is a constant"),
        (observed_model, {"y": lambda key, d: jnp.ones(3)}, ValueError, r"got \(3,\)"),
    ],
)
def test_refused_at_initialization(body, samplers, error, message):
    def model():
        body(numpyro.sample("theta", dist.Gamma(2.0, 1.0)))

    with pytest.raises(error, match=message):
        jax.eval_shape(lambda key: Exchange(model, samplers).init(key, 1), random.key(0))


def test_a_parameter_of_another_block_of_gibbs_is_refused():
    def model():
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        observed_model(k + numpyro.sample("theta", dist.Gamma(2.0, 1.0)))

    kernel = Gibbs([(DiscreteGibbs(model), ["k"]), (Exchange(model, {"y": draw_normal}), None)])
    with pytest.raises(DoublyIntractableError, match=r"\['k'\] belong to another block of Gibbs"):
        kernel.init(random.key(0), 1, None, (), {})


def test_a_block_of_gibbs_whose_siblings_leave_the_normalizer_alone():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("about_mu", dist.Normal(mu, 1.0), obs=2.0)
        precision_model(y)

    block = Exchange(model, {"y": draw_normal})
    kernel = Gibbs([(block, ["theta"]), (NUTS(model), None)])
    options = {"mcmc_cls": MCMC, "num_chains": 1, "num_samples": 8000, "extra_fields": ()}
    mcmc = run(kernel, Y, **options)
    draws = mcmc.get_samples(group_by_chain=True)
    shape, rate = SHAPE + 1.5, RATE + 0.5 * np.sum(Y**2)
    assert_recovers(draws["theta"], Moments(shape / rate, np.sqrt(shape) / rate))
    assert_recovers(draws["mu"], Moments(1.0, np.sqrt(0.5)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": None}, TypeError, "needs a NumPyro model"),
        ({"samplers": [draw_normal]}, TypeError, "samplers must map"),
        ({"samplers": {"y": 3}}, TypeError, r"samplers\['y'\] must be a function"),
        ({"potential_fn": lambda z: z}, TypeError, "potential_fn"),
        ({"step_size": 0.0}, ValueError, "step_size must be"),
        ({"target_accept_prob": 1.0}, ValueError, "target_accept_prob"),
    ],
)
def test_arguments_out_of_range(options, error, message):
    with pytest.raises(error, match=message):
        Exchange(**{"model": precision_model} | options)
