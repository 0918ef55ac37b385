"""The doubly intractable model is refused wherever the dependence hides; its neighbours pass."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax, random
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer import MCMC, DiscreteGibbs, Gibbs

from numpyro_score import networks
from numpyro_score.distributions import EnergyDistribution, Mixture, Product, ScoreDistribution
from numpyro_score.infer import MALA, DoublyIntractableError, ModelError, check_model


def energy(x, c):
    return 0.5 * jnp.sum((x * c) ** 2)


def conditional(c, **options):
    return EnergyDistribution(energy, (2,), condition=jnp.atleast_1d(c), **options)


def theta():
    return numpyro.sample("theta", dist.HalfNormal(1.0))


def condition_model():
    numpyro.sample("x", conditional(theta()))


def stopped_gradient_model():
    numpyro.sample("x", conditional(lax.stop_gradient(theta())))


def discrete_function_model():
    numpyro.sample("x", conditional(jnp.where(theta() > 1, 1.0, 2.0)))


def scan_model():
    t = theta()
    c, _ = lax.scan(lambda c, _: (c + t, None), 0.0, None, length=3)
    numpyro.sample("x", conditional(c))


def branch_model():
    c = lax.cond(theta() > 0, lambda: 1.0, lambda: 2.0)
    numpyro.sample("x", conditional(c))


def while_model():
    c = lax.while_loop(lambda c: c < 3, lambda c: c + 1, theta())
    numpyro.sample("x", conditional(c))


def jit_model():
    numpyro.sample("x", conditional(jax.jit(lambda t: 2 * t)(theta())))


def observed_likelihood_model():
    numpyro.sample("x", conditional(theta()), obs=jnp.ones(2))


def wrapped_model():
    d = conditional(theta()).expand([3]).to_event(1).mask(jnp.ones((), bool))
    numpyro.sample("x", d)


def transformed_model():
    base = conditional(theta())
    numpyro.sample(
        "x", dist.TransformedDistribution(base, dist.transforms.AffineTransform(0.0, 2.0))
    )


def mask_model():
    numpyro.sample("x", conditional(1.0).mask(theta() > 1))


def scale_model():
    t = theta()
    with handlers.scale(scale=t):
        numpyro.sample("x", conditional(1.0))


def support_model():
    support = constraints.interval(0.0, theta())
    numpyro.sample("x", EnergyDistribution(lambda x: jnp.sum(x**2), (2,), support=support))


def score_model():
    c = theta()[None]
    numpyro.sample("x", ScoreDistribution(lambda x, c: -x * c**2, (2,), condition=c))


def anchor_model():
    anchor = theta() * jnp.ones(2)
    numpyro.sample("x", ScoreDistribution(lambda x: -x, (2,), anchor=anchor))


def network_model():
    network = networks.EnergyMLP(2, width=4, key=random.key(0))
    t = theta()
    network = eqx.tree_at(lambda n: n.head, network, t * jnp.ones(4))
    numpyro.sample("x", EnergyDistribution(network, (2,)))


def closure_model():
    t = theta()
    numpyro.sample("x", EnergyDistribution(lambda x: energy(x, t), (2,)))


def score_closure_model():
    t = theta()
    numpyro.sample("x", ScoreDistribution(lambda x: -t * x, (2,)))


def param_model():
    c = numpyro.param("theta", jnp.ones(1))
    numpyro.sample("x", conditional(c))


def product_factor_model():
    """A factor with a normalizer of its own: that of the product is another."""
    factor = dist.Normal(theta() * jnp.ones(2), 1.0).to_event(1)
    numpyro.sample("x", Product([conditional(1.0), factor]))


def product_weight_model():
    numpyro.sample("x", Product([conditional(1.0)], weights=[theta()]))


def product_closure_model():
    t = theta()
    inner = EnergyDistribution(lambda x: energy(x, t), (2,), log_normalizer=-2 * jnp.log(t))
    numpyro.sample("x", Product([dist.Normal(jnp.zeros(2), 1.0).to_event(1), inner]))


def product_condition_model():
    inner = Product([conditional(theta()), conditional(2.0)]).expand([3]).to_event(1)
    numpyro.sample("x", inner, obs=jnp.ones((3, 2)))


def mixture_model():
    components = [conditional(theta()), conditional(1.0)]
    numpyro.sample("x", Mixture(components, log_weights=[0.0, 1.0]))


REFUSED = [
    product_factor_model,
    product_weight_model,
    product_closure_model,
    product_condition_model,
    mixture_model,
    condition_model,
    stopped_gradient_model,
    discrete_function_model,
    scan_model,
    branch_model,
    while_model,
    jit_model,
    observed_likelihood_model,
    wrapped_model,
    transformed_model,
    mask_model,
    scale_model,
    support_model,
    score_model,
    anchor_model,
    network_model,
    closure_model,
    score_closure_model,
    param_model,
]


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


def test_gibbs_does_not_hide_a_dependence():
    """To the block of `x` the site `k` is data, but Z(k) enters the update of `k`."""

    def model():
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        numpyro.sample("x", conditional(1.0 + k))

    kernel = Gibbs([(DiscreteGibbs(model), ["k"]), (MALA(model), ["x"])])
    mcmc = MCMC(kernel, num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(DoublyIntractableError, match="'k'"):
        mcmc.run(random.key(0))
