import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import EnergyMLP, ScoreMLP, as_score
from numpyro_score.networks._frozen import trainable

BOTH = pytest.mark.parametrize("cls", [EnergyMLP, ScoreMLP])


def data(n=100, d=3):
    return np.random.default_rng(1).normal(size=(n, d)) * np.arange(1, d + 1) + 4.0


def with_random_weights(network, scale=1.0):
    params, rest = eqx.partition(network, trainable(network))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    new = [scale * jax.random.normal(k, p.shape) for k, p in zip(keys, leaves, strict=True)]
    return eqx.combine(jax.tree.unflatten(tree, new), rest)


def score_of(network):
    return as_score(network) if isinstance(network, EnergyMLP) else network


@BOTH
def test_an_untrained_network_is_its_base(cls):
    network = cls(3, width=8, key=jax.random.key(0))
    x = jnp.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(score_of(network)(x), -x, rtol=1e-6)
    network = network.fit_base(data(), noise_scale=0.5)
    np.testing.assert_allclose(score_of(network)(x), network.base.score(x), rtol=1e-5)


@BOTH
def test_base_and_standardization_are_not_trained(cls):
    network = with_random_weights(cls(3, width=8, condition_size=2, key=jax.random.key(0)))
    x, c = jnp.ones(3), jnp.ones(2)
    grads = eqx.filter_grad(lambda n: jnp.sum(n(x, c)))(network)
    frozen = (grads.base, grads.condition_standardization)
    assert all(not g.any() for g in jax.tree.leaves(frozen))
    assert grads.head.any()
    marks = trainable(network)
    assert marks.base is False
    assert marks.condition_standardization is False
    assert marks.head is True


@BOTH
def test_residual_layers_add_to_the_one_before(cls):
    network = with_random_weights(cls(2, width=4, depth=3, residual=True, key=jax.random.key(0)))
    x = jnp.array([0.5, -2.0])
    first, second, third = network.layers
    hidden = jax.nn.silu(first(x))
    hidden = hidden + jax.nn.silu(second(hidden))
    if cls is EnergyMLP:
        hidden = hidden + jax.nn.silu(third(hidden))
        expected = network.base.energy(x) + network.head @ hidden
    else:
        expected = network.base.score(x) + network.head @ jnp.tanh(third(hidden))
    np.testing.assert_allclose(network(x), expected, rtol=1e-5)


@BOTH
@pytest.mark.parametrize("residual", [False, True])
def test_tails_point_home_whatever_the_weights(cls, residual):
    network = cls(3, width=16, residual=residual, key=jax.random.key(0))
    network = with_random_weights(network, scale=3.0)
    directions = jax.random.normal(jax.random.key(1), (50, 3))
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    # The pull of the base grows with the distance, that of these weights stays below 1e5.
    far = 1e6 * directions
    outward = jnp.sum(jax.vmap(score_of(network))(far) * directions, axis=1)
    assert jnp.all(outward < 0)


@BOTH
def test_units_of_the_data_do_not_matter(cls):
    network = with_random_weights(cls(3, width=8, condition_size=1, key=jax.random.key(0)))
    rows, conditions = data(), data(d=1)
    scale, shift = 100.0, 7.0
    one = network.fit_base(rows, 0.1, conditions)
    other = network.fit_base(scale * rows + shift, scale * 0.1, 3.0 * conditions - 1.0)
    x, c = jnp.array(rows[0]), jnp.array(conditions[0])
    np.testing.assert_allclose(
        score_of(one)(x, c) - one.base.score(x),
        (score_of(other)(scale * x + shift, 3.0 * c - 1.0) - other.base.score(scale * x + shift))
        * (scale if cls is EnergyMLP else 1.0),
        rtol=2e-3,
        atol=1e-4,
    )


@BOTH
def test_depth_width_and_jit(cls):
    network = with_random_weights(cls(3, width=7, depth=3, key=jax.random.key(0)))
    assert [layer.weight.shape for layer in network.layers] == [(7, 3), (7, 7), (7, 7)]
    xs = jnp.array(data(5))
    batched = jax.jit(jax.vmap(network))(xs)
    np.testing.assert_allclose(batched[2], network(xs[2]), rtol=1e-4)
    # Nothing but arrays is a leaf, so the network may cross jit as an argument.
    once = jax.jit(lambda n, x: n(x))(network, xs[2])
    np.testing.assert_allclose(once, network(xs[2]), rtol=1e-4)


@BOTH
def test_condition_matters(cls):
    network = with_random_weights(cls(3, width=8, condition_size=2, key=jax.random.key(0)))
    x = jnp.ones(3)
    assert not jnp.allclose(network(x, jnp.zeros(2)), network(x, jnp.ones(2)))


@BOTH
def test_fit_base_leaves_the_original_alone(cls):
    network = cls(3, width=4, key=jax.random.key(0))
    network.fit_base(data())
    np.testing.assert_array_equal(network.base.mean, np.zeros(3))


@BOTH
@pytest.mark.parametrize("shape", [(), (1,), (4,), (10, 3)])
def test_wrong_event_shape(cls, shape):
    network = cls(3, width=4, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"one event of shape \(3,\), got .* jax.vmap"):
        network(jnp.zeros(shape))


@BOTH
def test_wrong_condition(cls):
    plain = cls(3, width=4, key=jax.random.key(0))
    conditional = cls(3, width=4, condition_size=2, key=jax.random.key(0))
    x = jnp.zeros(3)
    with pytest.raises(ValueError, match="takes no condition, got one of shape"):
        plain(x, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"condition of shape \(2,\) per event, got none"):
        conditional(x)
    with pytest.raises(ValueError, match=r"got one of shape \(3,\)"):
        conditional(x, jnp.zeros(3))
    with pytest.raises(ValueError, match="takes no condition"):
        plain.fit_base(data(), condition=data(d=2))
    with pytest.raises(ValueError, match="got none"):
        conditional.fit_base(data())


def test_fit_base_refuses_bad_rows():
    network = EnergyMLP(3, width=4, condition_size=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"data must have the shape \(n, 3\)"):
        network.fit_base(data(d=2), condition=data(d=1))
    with pytest.raises(ValueError, match=r"column of condition must vary.*columns 0"):
        network.fit_base(data(), condition=np.ones((100, 1)))


@pytest.mark.parametrize("setting", ["in_size", "width", "depth"])
def test_sizes_are_positive_integers(setting):
    sizes = {"in_size": 3, "width": 4, "depth": 1} | {setting: 0}
    with pytest.raises(ValueError, match=f"{setting} must be an integer of at least 1"):
        EnergyMLP(
            sizes["in_size"], width=sizes["width"], depth=sizes["depth"], key=jax.random.key(0)
        )
