"""The doubly intractable model is refused wherever the dependence hides; its neighbours pass."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax, random
from numpyro.contrib.control_flow import cond, scan
from numpyro.distributions import constraints
from numpyro.infer import MCMC, DiscreteGibbs, Gibbs

from numpyro_score.distributions import EnergyDistribution, Product
from numpyro_score.infer import MALA, DoublyIntractableError, ModelError, check_model

from .intractable_models import REFUSED, condition_model, conditional, energy, theta


@pytest.mark.parametrize("model", REFUSED, ids=lambda model: model.__name__)
def test_doubly_intractable_models_are_refused_by_name(model):
    with pytest.raises(DoublyIntractableError, match=r"Site 'x' .* 'theta'"):
        check_model(model)


@pytest.mark.parametrize("cls", [MALA])
def test_kernels_refuse_at_initialization(cls):
    mcmc = MCMC(cls(condition_model), num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(DoublyIntractableError, match="'theta'"):
        mcmc.run(random.key(0))


def normalizer_model():
    t = theta()
    numpyro.sample("x", conditional(t, log_normalizer=-2 * jnp.log(t)))


def product_model():
    t = theta()
    x = numpyro.sample("x", Product([conditional(1.0), conditional(2.0)]))
    numpyro.sample("y", dist.Normal(x, t).to_event(1), obs=jnp.ones(2))
    factors = [conditional(t), conditional(2 * t)]
    numpyro.sample("z", Product(factors, log_normalizer=-2 * jnp.log(t)))


def prior_and_data_model():
    t = theta()
    x = numpyro.sample("x", conditional(1.0))
    numpyro.sample("y", dist.Normal(x, t).to_event(1), obs=jnp.ones(2))


def constant_closure_model():
    theta()
    loc = jnp.ones(2)
    numpyro.sample("x", EnergyDistribution(lambda x: energy(x - loc, 1.0), (2,)))


def unrelated_in_one_scan_model():
    t = theta()
    (_, c), _ = lax.scan(lambda s, _: ((s[0] + t, s[1] + 1.0), None), (0.0, 0.0), None, length=3)
    numpyro.sample("x", conditional(c))


def affine_in_latent_model():
    """A bijector moves Z nowhere: its Jacobian is in the density."""
    transform = dist.transforms.AffineTransform(0.0, theta())
    numpyro.sample("x", dist.TransformedDistribution(conditional(1.0), transform))


def chained_latents_model():
    x = numpyro.sample("x", conditional(1.0))
    numpyro.sample("theta", dist.Normal(x.sum(), 1.0))


@pytest.mark.parametrize(
    "model",
    [
        normalizer_model,
        product_model,
        prior_and_data_model,
        constant_closure_model,
        unrelated_in_one_scan_model,
        affine_in_latent_model,
        chained_latents_model,
    ],
    ids=lambda model: model.__name__,
)
def test_sound_models_pass(model):
    check_model(model)


def test_mixture_of_unnormalized_components_is_refused():
    def model(**options):
        mixing = dist.Categorical(probs=jnp.array([0.5, 0.5]))
        components = [
            conditional(1.0, **options),
            dist.Normal(jnp.zeros(2), 1.0).to_event(1),
        ]
        numpyro.sample(
            "x", dist.MixtureGeneral(mixing, components, support=constraints.real_vector)
        )

    with pytest.raises(DoublyIntractableError, match="Site 'x' mixes"):
        check_model(model)
    check_model(model, log_normalizer=0.0)


def test_no_latent_site():
    def model():
        numpyro.sample("x", dist.Normal(0.0, 1.0), obs=0.0)

    with pytest.raises(ModelError, match="no continuous latent site"):
        check_model(model)


def test_discrete_latent_sites_are_named():
    def model():
        numpyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        numpyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(ModelError, match=r"\['k'\] are discrete"):
        check_model(model)


def test_subsampling_is_refused():
    def model():
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 10, subsample_size=2):
            batch = numpyro.subsample(jnp.ones(10), event_dim=0)
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=batch)

    with pytest.raises(ModelError, match="'rows' subsamples 2 of 10"):
        check_model(model)


@pytest.mark.parametrize("inner", ["scan", "cond", "cond in scan"])
def test_subsampling_that_scan_or_cond_hides_is_refused(inner):
    def model(subsample_size):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))

        def look(carry, _=None):
            with numpyro.plate("rows", 10, subsample_size=subsample_size):
                batch = numpyro.subsample(jnp.ones(10), event_dim=0)
                numpyro.sample("y", dist.Normal(mu, 1.0), obs=batch)
            return carry, None

        def perhaps(carry, _=None):
            return cond(mu > 0, look, look, carry)

        if inner == "cond":
            perhaps(0.0)
        else:
            scan(look if inner == "scan" else perhaps, 0.0, None, length=2)

    with pytest.raises(ModelError, match="'rows' subsamples 2 of 10 rows inside scan or cond"):
        check_model(model, 2)
    check_model(model, None)


def test_gibbs_does_not_hide_a_dependence():
    """To the block of `x` the site `k` is data, but Z(k) enters the update of `k`."""

    def model():
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        numpyro.sample("x", conditional(1.0 + k))

    kernel = Gibbs([(DiscreteGibbs(model), ["k"]), (MALA(model), ["x"])])
    mcmc = MCMC(kernel, num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(DoublyIntractableError, match="'k'"):
        mcmc.run(random.key(0))
