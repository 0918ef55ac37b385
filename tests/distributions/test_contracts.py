"""Contracts that every learned distribution keeps, whatever its network and support."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.infer import (
    SVI,
    Predictive,
    Trace_ELBO,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import initialize_model, potential_energy

from numpyro_score.distributions import EnergyDistribution, ScoreDistribution
from tests.cases import DISTRIBUTIONS, SHORT_RUN

CASES = pytest.mark.parametrize("name", DISTRIBUTIONS)
UNNORMALIZED = pytest.mark.parametrize(
    "name", [name for name, case in DISTRIBUTIONS.items() if not case.draws]
)
RTOL = 2e-4 if jnp.result_type(float) == jnp.float32 else 1e-6


def feasible(d: dist.Distribution, lead: tuple[int, ...] = (), seed: int = 0):
    """Random values on the support of ``d``, of shape ``lead + batch_shape + event_shape``."""
    transform = biject_to(d.support)
    shape = transform.inverse_shape(d.shape(lead))
    return transform(0.7 * random.normal(random.key(seed), shape))


@CASES
def test_log_prob_equals_the_exact_one_up_to_a_constant(name):
    case = DISTRIBUTIONS[name]
    d, exact = case.make(), case.exact()
    x = feasible(d, (20,))
    ours, theirs = jax.jit(lambda x: (d.log_prob(x), exact.log_prob(x)))(x)
    assert ours.shape == (20, *d.batch_shape)
    spread = np.ptp(ours - theirs, axis=0)
    np.testing.assert_allclose(spread, 0.0, atol=50 * RTOL)


def derivatives(f):
    """One program for all: each of their small operations would be one by itself."""
    return jax.jit(lambda x: (jax.grad(f)(x), jax.jacfwd(f)(x), jax.hessian(f)(x)))


@CASES
def test_gradient_and_hessian_equal_the_exact_ones_in_both_modes(name):
    case = DISTRIBUTIONS[name]
    d, exact = case.make(), case.exact()
    x = feasible(d)
    ours, theirs = (lambda x, d=d: d.log_prob(x).sum() for d in (d, exact))
    reverse, forward, hessian = derivatives(ours)(x)
    expected, _, expected_hessian = derivatives(theirs)(x)
    np.testing.assert_allclose(reverse, expected, rtol=10 * RTOL, atol=10 * RTOL)
    np.testing.assert_allclose(forward, expected, rtol=10 * RTOL, atol=10 * RTOL)
    np.testing.assert_allclose(d.score(x), expected, rtol=10 * RTOL, atol=10 * RTOL)
    np.testing.assert_allclose(hessian, expected_hessian, rtol=100 * RTOL, atol=100 * RTOL)


@CASES
def test_any_leading_shape_is_the_stack_of_single_events(name):
    d = DISTRIBUTIONS[name].make()
    x = feasible(d, (2, 2))
    log_prob = jax.jit(d.log_prob)
    single = jnp.stack([log_prob(v) for v in x.reshape(4, *d.shape())])
    for lead in [(2, 2), (4,), (1, 4)]:
        out = log_prob(x.reshape(lead + d.shape()))
        assert out.shape == lead + d.batch_shape
        np.testing.assert_allclose(out, single.reshape(out.shape), rtol=RTOL, atol=RTOL)


@CASES
def test_wrong_event_shape_is_told_with_both_shapes(name):
    d = DISTRIBUTIONS[name].make()
    if d.event_shape == ():
        pytest.skip("every array is a batch of scalars")
    wrong = jnp.ones((7, *d.event_shape[:-1], d.event_shape[-1] + 1)) / 10
    with pytest.raises(ValueError, match=r"value must have the shape .* got \(7, "):
        d.log_prob(wrong)


@CASES
def test_passes_through_tree_map_jit_vmap_and_scan(name):
    d = DISTRIBUTIONS[name].make()
    x = feasible(d)
    expected = d.log_prob(x)
    traces = []

    @jax.jit
    def f(d, x):
        traces.append(1)
        return d.log_prob(x)

    same = jax.tree.map(lambda leaf: leaf, d)
    np.testing.assert_allclose(f(d, x), expected, rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(f(same, x), expected, rtol=RTOL, atol=RTOL)
    assert len(traces) == 1, "an equal distribution must hit the cache of jit"
    assert jax.tree.structure(same) == jax.tree.structure(d)

    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), d)
    if jax.tree.leaves(d):
        out = jax.vmap(lambda d: d.log_prob(x))(stacked)
        np.testing.assert_allclose(out, jnp.stack([expected] * 2), rtol=RTOL, atol=RTOL)

    _, out = jax.lax.scan(lambda c, y: (c, c.log_prob(y)), d, jnp.stack([x, x]))
    np.testing.assert_allclose(out, jnp.stack([expected] * 2), rtol=RTOL, atol=RTOL)


@CASES
def test_expand_to_event_mask_and_scale(name):
    d = DISTRIBUTIONS[name].make()
    wide = d.expand((4, *d.batch_shape))
    x = feasible(wide)
    each = d.log_prob(x)
    np.testing.assert_allclose(wide.log_prob(x), each, rtol=RTOL)
    np.testing.assert_allclose(wide.to_event(1).log_prob(x).shape, each.shape[:-1])
    mask = jnp.arange(each.size).reshape(each.shape) % 2 == 0
    np.testing.assert_allclose(wide.mask(mask).log_prob(x), jnp.where(mask, each, 0.0), rtol=RTOL)


@CASES
def test_does_not_claim_reparametrized_samples(name):
    d = DISTRIBUTIONS[name].make()
    assert not d.has_rsample
    assert not d.expand((3, *d.batch_shape)).has_rsample


@UNNORMALIZED
def test_sampling_is_opt_in(name):
    case = DISTRIBUTIONS[name]
    with pytest.raises(NotImplementedError, match=r"sampler=numpyro_score\.samplers\.Langevin"):
        case.make().sample(random.key(0))
    d = case.make(sampler=SHORT_RUN)
    draws = d.sample(random.key(0), (2, 3))
    assert draws.shape == (2, 3, *d.batch_shape, *d.event_shape)
    assert bool(jnp.all(d.support(draws)))


@UNNORMALIZED
def test_draws_of_an_expanded_distribution_and_legacy_keys(name):
    d = DISTRIBUTIONS[name].make(sampler=SHORT_RUN)
    wide = d.expand((5, *d.batch_shape))
    draws = wide.sample(random.PRNGKey(0))
    assert draws.shape == wide.shape()
    assert not np.array_equal(draws[0], draws[1])


@UNNORMALIZED
def test_normalizer_is_subtracted_and_declared(name):
    case = DISTRIBUTIONS[name]
    plain, normalized = case.make(), case.make(log_normalizer=1.5)
    x = feasible(plain)
    assert (plain.normalized, normalized.normalized) == (False, True)
    np.testing.assert_allclose(normalized.log_prob(x), plain.log_prob(x) - 1.5, rtol=RTOL)


def model_with(d):
    """A prior that is learned, beside a factor and an observation."""

    def model(y=None):
        with numpyro.plate_stack("rows", (2, *d.batch_shape)):
            x = numpyro.sample("x", d)
        numpyro.factor("extra", -0.1 * jnp.sum(x**2))
        numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=y)

    return model


@CASES
def test_initialization_in_a_model(name):
    d = DISTRIBUTIONS[name].make()
    # One strategy a case, in turn: each meets energies, scores, conditions and supports.
    init = [init_to_uniform, init_to_median, init_to_sample][list(DISTRIBUTIONS).index(name) % 3]
    info = initialize_model(random.key(0), model_with(d), init_strategy=init, model_args=(1.0,))
    x = info.postprocess_fn(info.param_info.z)["x"]
    assert x.shape == (2, *d.batch_shape, *d.event_shape)
    assert bool(jnp.isfinite(info.param_info.potential_energy))


@CASES
def test_init_to_value_condition_substitute_block_and_scale(name):
    d = DISTRIBUTIONS[name].make()
    model = model_with(d)
    value = feasible(d.expand((2, *d.batch_shape)))
    info = initialize_model(
        random.key(0),
        model,
        init_strategy=init_to_value(values={"x": value}),
        model_args=(1.0,),
    )
    start = info.postprocess_fn(info.param_info.z)["x"]
    np.testing.assert_allclose(start, value, rtol=1e-3, atol=1e-4)

    total = jnp.sum(d.log_prob(value))
    conditioned = handlers.trace(
        handlers.seed(handlers.condition(model, {"x": value}), 0)
    ).get_trace(1.0)
    assert conditioned["x"]["is_observed"]
    site = conditioned["x"]
    np.testing.assert_allclose(site["fn"].log_prob(site["value"]).sum(), total, rtol=RTOL)
    substituted = handlers.substitute(handlers.seed(model, 0), {"x": value})
    trace = handlers.trace(handlers.block(substituted, hide=["y"])).get_trace(1.0)
    assert "y" not in trace
    np.testing.assert_array_equal(trace["x"]["value"], value)
    with handlers.scale(scale=3.0):
        trace = handlers.trace(substituted).get_trace(1.0)
    assert trace["x"]["scale"] == 3.0


@CASES
def test_potential_energy_has_one_jacobian_per_event(name):
    """NumPyro's potential of the site is that of the exact distribution, up to a constant."""
    case = DISTRIBUTIONS[name]
    ours, theirs = (lambda d=d: numpyro.sample("x", d) for d in (case.make(), case.exact()))
    transform = biject_to(case.exact().support)
    d = case.make()
    zs = random.normal(random.key(3), (5, *transform.inverse_shape(d.shape())))
    difference = jnp.stack(
        [
            potential_energy(ours, (), {}, {"x": z}) - potential_energy(theirs, (), {}, {"x": z})
            for z in zs
        ]
    )
    assert float(jnp.ptp(difference)) < 50 * RTOL * max(1, zs[0].size)


@pytest.mark.parametrize("name", ["energy", "score", "energy_positive"])
def test_svi_with_an_autoguide_on_the_latent(name):
    model = model_with(DISTRIBUTIONS[name].make())
    guide = AutoNormal(model)
    svi = SVI(model, guide, numpyro.optim.Adam(1e-2), Trace_ELBO())
    result = svi.run(random.key(0), 50, 1.0, progress_bar=False)
    assert bool(jnp.isfinite(result.losses).all())
    assert result.losses[-10:].mean() < result.losses[:10].mean()


@pytest.mark.parametrize("name", ["energy", "score", "energy_conditional", "energy_simplex"])
def test_predictive_with_posterior_samples(name):
    d = DISTRIBUTIONS[name].make()
    x = feasible(d, (6, 2))
    predictive = Predictive(model_with(d), posterior_samples={"x": x})
    assert predictive(random.key(0))["y"].shape == (6,)


@pytest.mark.parametrize("name", ["energy", "score"])
def test_render_model(name):
    pytest.importorskip("graphviz")
    graph = numpyro.render_model(
        model_with(DISTRIBUTIONS[name].make(sampler=SHORT_RUN)), render_distributions=True
    )
    assert "Distribution" in graph.source


@pytest.mark.parametrize(
    ("cls", "network"),
    [
        (EnergyDistribution, lambda x, c: 0.5 * jnp.sum((x - c) ** 2)),
        (ScoreDistribution, lambda x, c: c - x),
    ],
)
def test_gradient_in_the_condition_is_not_lost(cls, network):
    def log_prob(c):
        return cls(network, (2,), condition=c).log_prob(jnp.array([1.0, 2.0]))

    c, eps = jnp.array([0.5, -1.0]), 1e-2
    numeric = jnp.array(
        [(log_prob(c + eps * e) - log_prob(c - eps * e)) / (2 * eps) for e in jnp.eye(2)]
    )
    assert jnp.abs(numeric).min() > 0.1
    np.testing.assert_allclose(jax.grad(log_prob)(c), numeric, rtol=1e-2)
