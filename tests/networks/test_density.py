"""Density networks: normalized, drawn from exactly, told by a condition, and kept in files."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import numpyro_score
from numpyro_score.networks import (
    VAE,
    CausalConvDensity,
    DensityNetwork,
    EnergyMLP,
    FlowDensity,
    TiltedEnergy,
    from_distribution,
    from_flowjax,
)
from numpyro_score.objectives import MaximumLikelihood
from numpyro_score.training import fit

from .densities import KEY, STANDARD_ERRORS, integral, shaken, stein_errors

DATA = jnp.array([3.0, -1.0]) + jax.random.normal(KEY, (500, 2)) @ jnp.array(
    [[2.0, 1.0], [0.0, 0.7]]
)


def normal(params, *condition):
    loc = params["loc"] + (condition[0] if condition else 0.0)
    return dist.MultivariateNormal(loc, scale_tril=jnp.diag(jnp.exp(params["log_scale"])))


PARAMS = {"loc": np.array([3.0, -1.0]), "log_scale": jnp.array([0.7, 0.2])}


def flow(condition_size=0):
    network = FlowDensity(2, num_layers=3, width=8, depth=1, condition_size=condition_size, key=KEY)
    condition = jax.random.normal(KEY, (500, condition_size)) if condition_size else None
    return shaken(network.fit_base(DATA, condition=condition))


NETWORKS = {
    "flow": flow,
    "distribution": lambda: from_distribution(normal, PARAMS),
    "causal": lambda: shaken(
        CausalConvDensity((1, 2), width=4, depth=1, num_components=2, key=KEY).fit_base(
            DATA.reshape(-1, 1, 2)
        )
    ),
}


def shape_of(name):
    return (1, 2) if name == "causal" else (2,)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_density_integrates_to_one(name):
    network = NETWORKS[name]()
    assert network.log_normalizer == 0.0
    total = integral(network, shape_of(name), jnp.array([3.0, -1.0]), 2.5)
    assert abs(total - 1) < 0.01


@pytest.mark.parametrize("name", ["flow", "distribution"])  # of a causal one see its own tests
def test_draws_are_those_of_the_density(name):
    network = NETWORKS[name]()
    draws = jax.jit(lambda key: network.sample(key, (4_000,)))(KEY)
    assert draws.shape == (4_000, 2)
    assert stein_errors(network, draws) < STANDARD_ERRORS
    # What is planted: draws that are a tenth too wide.
    assert stein_errors(network, draws.mean(0) + 1.1 * (draws - draws.mean(0))) > STANDARD_ERRORS


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_of_draws(name, lead):
    network = NETWORKS[name]()
    draws = jax.eval_shape(lambda: network.sample(KEY, lead))
    assert draws.shape == (*lead, *shape_of(name))


CONDITIONAL = {"flow": lambda: flow(2), "distribution": NETWORKS["distribution"]}


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditions(name):
    network, x = CONDITIONAL[name](), jnp.array([2.0, 0.5])
    condition = jnp.array([0.5, -1.0])
    draws = eqx.filter_jit(network.sample)(KEY, (4_000,), condition)
    assert stein_errors(network, draws, condition) < STANDARD_ERRORS
    assert stein_errors(network, draws, condition + 1.0) > STANDARD_ERRORS
    step, call = 1e-2 * jnp.eye(2), eqx.filter_jit(network)
    numeric = [(call(x, condition + e) - call(x, condition - e)) / 2e-2 for e in step]
    assert np.abs(numeric).max() > 0.01
    gradient = jax.jit(jax.grad(lambda c: network(x, c)))(condition)
    np.testing.assert_allclose(gradient, numeric, rtol=0.02, atol=2e-3)


def test_a_flow_is_triangular_and_reads_the_condition_first():
    """The first dimension of a layer sees the condition and nothing else."""
    network = shaken(FlowDensity(3, num_layers=2, width=8, condition_size=2, key=KEY))
    z, c = jnp.array([0.3, -0.2, 0.5]), jnp.array([1.0, -1.0])
    for i, expected in enumerate([np.tril(np.ones((3, 3)), -1), np.triu(np.ones((3, 3)), 1)]):
        outs = jax.jit(jax.jacobian(network._shift_and_log_scale, (1, 2)), static_argnums=0)(
            i, c, z
        )
        for of_c, of_z in outs:
            np.testing.assert_array_equal(of_z != 0, expected)
            assert (of_c != 0).all()


def test_an_untrained_flow_is_its_gaussian():
    network = FlowDensity(2, width=8, key=KEY).fit_base(DATA, noise_scale=0.5)
    exact = dist.MultivariateNormal(DATA.mean(0), jnp.cov(DATA.T, bias=True) + 0.25 * jnp.eye(2))
    energies = jax.jit(jax.vmap(network))(DATA[:20])
    np.testing.assert_allclose(-energies, exact.log_prob(DATA[:20]), rtol=1e-4)


def test_the_score_of_a_flow_is_the_gradient_where_scales_are_large():
    """NumPyro's own cut of the log scale passes a gradient that is not that of the density."""
    network = eqx.tree_at(lambda n: n.layers[0][-1][1], flow(), jnp.array([0.0, 0.0, 6.0, 6.0]))
    x = jnp.array([3.1, -1.2])
    step, call = 1e-2 * jnp.eye(2), eqx.filter_jit(network)
    numeric = jnp.array([(call(x + e) - call(x - e)) / 2e-2 for e in step])
    np.testing.assert_allclose(jax.jit(jax.grad(network))(x), numeric, rtol=0.02, atol=0.02)


def test_a_flow_learns_a_banana():
    """Its entropy is known: the divergence of the fit is what a held-out loss is above it."""
    noise = jax.random.normal(KEY, (6_000, 2))
    x = jnp.stack([noise[:, 0], noise[:, 0] ** 2 + 0.5 * noise[:, 1]], 1)
    network = FlowDensity(2, num_layers=3, width=16, depth=1, key=KEY)
    result = fit(
        KEY,
        network,
        x[:5_000],
        MaximumLikelihood(),
        num_steps=300,
        learning_rate=1e-2,
        validation_fraction=0.0,
        progress_bar=False,
    )
    log_p = -0.5 * jnp.sum(noise[5_000:] ** 2, 1) - np.log(2 * np.pi) - np.log(0.5)
    excess = log_p + jax.vmap(result.network)(x[5_000:])
    gaussian = log_p + jax.vmap(network.fit_base(x[:5_000]))(x[5_000:])
    assert gaussian.mean() > 0.8
    assert -5 * excess.std() / np.sqrt(1_000) < excess.mean() < 0.1


FILES = NETWORKS | {
    "conditional flow": lambda: flow(2),
    "vae": lambda: shaken(VAE((2,), 1, width=4, key=KEY).fit_base(DATA)),
    "tilted": lambda: TiltedEnergy(flow(), shaken(EnergyMLP(2, width=4, key=KEY))),
}


@pytest.mark.parametrize("name", FILES)
def test_they_come_back_from_a_file(name, tmp_path):
    network = FILES[name]()
    numpyro_score.save(tmp_path / "file", network)
    like = network if name == "distribution" else None
    loaded = numpyro_score.load(tmp_path / "file", like=like)
    x = (jnp.full(shape_of(name), 0.3), *((jnp.ones(2),) if name.startswith("cond") else ()))
    assert type(loaded) is type(network)
    assert eqx.tree_equal(loaded, network)
    assert np.isfinite(eqx.filter_jit(loaded)(*x))


def test_parameters_of_a_distribution_are_trained():
    network = from_distribution(normal, PARAMS)
    grads = eqx.filter_grad(lambda n: n(jnp.zeros(2)))(network)
    assert all(g.any() for g in jax.tree.leaves(grads))
    assert len(jax.tree.leaves(grads)) == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: from_distribution(3.0, ()), TypeError, "build must be a function, got float"),
        (
            lambda: from_distribution(lambda p: p, 1.0)(jnp.zeros(2)),
            TypeError,
            "build must return a NumPyro distribution, got",
        ),
        (
            lambda: from_distribution(lambda p: dist.Normal(p, 1.0), jnp.zeros(2))(jnp.zeros(2)),
            ValueError,
            r"batch_shape \(2,\) and the event_shape \(\); see to_event",
        ),
        (lambda: FlowDensity(0, key=KEY), ValueError, "in_size must be an integer of at least 1"),
        (lambda: FlowDensity(4, width=3, key=KEY), ValueError, "width must be .* at least 4"),
        (lambda: flow()(jnp.zeros(3)), ValueError, r"takes one event of shape \(2,\), got \(3,\)"),
        (lambda: flow(2)(jnp.zeros(2)), ValueError, r"takes a condition of shape \(2,\)"),
        (lambda: flow().sample(KEY, (), jnp.zeros(2)), ValueError, "takes no condition"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_class_of_ones_own():
    class Standard(DensityNetwork):
        def __call__(self, x, condition=None):
            return -dist.Normal().log_prob(x).sum()

        def sample(self, rng_key, sample_shape=(), condition=None):
            return jax.random.normal(rng_key, (*sample_shape, 2))

    x = jnp.array([0.3, 0.4])
    assert Standard().loss(x, KEY) == Standard()(x)
    assert not Standard.is_bound


def test_flowjax():
    flows = pytest.importorskip("flowjax.flows")
    distributions = pytest.importorskip("flowjax.distributions")
    paramax = pytest.importorskip("paramax")
    coupling = flows.coupling_flow(
        KEY,
        base_dist=paramax.non_trainable(distributions.Normal(jnp.zeros(2))),
        cond_dim=1,
        flow_layers=2,
        nn_width=8,
        nn_depth=1,
    )
    network, c = from_flowjax(coupling), jnp.array([0.5])
    marked, network = network.rest, shaken(network)
    assert eqx.tree_equal(network.rest, marked)
    assert any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(marked))
    draws = network.sample(KEY, (2_000,), c)
    assert stein_errors(network, draws, c) < STANDARD_ERRORS
    assert abs(integral(lambda x: network(x, c), (2,), jnp.zeros(2), 2.0) - 1) < 0.01
    assert jax.grad(network, 1)(draws[0], c).any()
    losses = MaximumLikelihood()(network, draws[:3], KEY, jnp.tile(c, (3, 1)))
    assert losses.shape == (3,)
    with pytest.raises(TypeError, match=r"takes a flowjax\.distributions\.AbstractDistribution"):
        from_flowjax(lambda x: x)
