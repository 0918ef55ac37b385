import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import EnergyMLP, as_network, from_function, from_linen, from_nnx
from numpyro_score.networks._frozen import trainable

X = np.array([1.0, -2.0])


def linen_network():
    linen = pytest.importorskip("flax.linen")

    class Energy(linen.Module):
        width: int

        @linen.compact
        def __call__(self, x):
            centre = self.variable("running", "centre", lambda: jnp.full(x.shape, 0.5))
            return jnp.sum(linen.Dense(self.width)(x - centre.value) ** 2)

    module = Energy(4)
    variables = module.init(jax.random.key(0), X)
    return (module, variables), module.apply(variables, X)


def nnx_network():
    nnx = pytest.importorskip("flax.nnx")

    class Energy(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(2, 4, rngs=rngs)
            self.centre = nnx.BatchStat(jnp.full(2, 0.5))

        def __call__(self, x):
            return jnp.sum(self.dense(x - self.centre[...]) ** 2)

    module = Energy(nnx.Rngs(0))
    return module, module(jnp.array(X))


def function_network():
    params = {"w": np.ones((4, 2)), "b": 0.5}
    return (lambda p, x: jnp.sum((p["w"] @ x + p["b"]) ** 2), params), 1.0


ADAPTED = pytest.mark.parametrize("make", [function_network, linen_network, nnx_network])


@ADAPTED
def test_adapted_networks_compute_the_same(make):
    network, expected = make()
    np.testing.assert_allclose(as_network(network)(X), expected, rtol=1e-5)


@ADAPTED
def test_parameters_are_leaves_and_structure_is_static(make):
    adapted = as_network(make()[0])
    assert isinstance(adapted, eqx.Module)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(adapted))
    hash(jax.tree.structure(adapted))
    np.testing.assert_allclose(jax.jit(lambda n, x: n(x))(adapted, X), adapted(X), rtol=1e-5)


@ADAPTED
def test_gradients_reach_parameters_but_no_constants(make):
    adapted = as_network(make()[0])
    grads = eqx.filter_grad(lambda n: n(X))(adapted)
    assert all(g.any() for g in jax.tree.leaves(grads.params))
    assert not any(g.any() for g in jax.tree.leaves(grads.constants))
    assert all(jax.tree.leaves(trainable(adapted).params))
    assert trainable(adapted).constants is False


@ADAPTED
def test_adapted_networks_pass_vmap_and_grad(make):
    adapted = as_network(make()[0])
    gradients = jax.vmap(jax.grad(adapted))(jnp.stack([X, 2 * X]))
    assert gradients.shape == (2, 2)


def test_conditions_are_passed_on():
    network = from_function(lambda p, x, c: p * jnp.sum(x) * c, 2.0)
    np.testing.assert_allclose(network(X, jnp.array(3.0)), -6.0)


def test_equinox_modules_are_returned_as_they_are():
    network = EnergyMLP(2, width=4, key=jax.random.key(0))
    assert as_network(network) is network
    adapted = from_function(lambda p, x: p * x, 1.0)
    assert as_network(adapted) is adapted


def test_a_plain_function_has_no_parameters():
    network = as_network(jnp.sum)
    assert jax.tree.leaves(network) == []
    assert float(network(X)) == -1.0


@pytest.mark.parametrize("wrong", [3.0, "energy", (1, 2), (jnp.sum, 1, 2), EnergyMLP, None])
def test_anything_else_is_refused_with_a_list(wrong):
    with pytest.raises(TypeError, match="a network must be an Equinox module, a function"):
        as_network(wrong)


def test_a_linen_module_without_variables_is_refused():
    (module, _), _ = linen_network()
    with pytest.raises(TypeError, match="a network must be"):
        as_network(module)


def test_adapters_refuse_each_others_modules():
    (module, variables), _ = linen_network()
    with pytest.raises(TypeError, match="from_nnx takes"):
        from_nnx(module)
    with pytest.raises(TypeError, match="from_linen takes"):
        from_linen(nnx_network()[0], variables)
    with pytest.raises(TypeError, match="with the key 'params'"):
        from_linen(module, {"weights": 1})


def test_unhashable_functions_are_refused():
    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return x

    with pytest.raises(TypeError, match="must be hashable"):
        as_network(Unhashable())
    with pytest.raises(TypeError, match="apply_fn must be a function"):
        from_function(3, {})


def test_without_flax_the_error_says_how_to_get_it(monkeypatch):
    for name in ("flax", "flax.linen", "flax.nnx"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: from_nnx(object()), lambda: from_linen(object(), {})):
        with pytest.raises(ImportError, match=r"pip install 'numpyro_score\[flax\]'"):
            call()
    assert as_network(jnp.sum)(X) == -1.0


def test_import_loads_no_flax_and_makes_no_arrays():
    # BlackJAX makes an array of its own when it is imported.
    code = (
        "import sys, blackjax, jax; before = len(jax.live_arrays()); "
        "import numpyro_score.networks, numpyro_score.objectives, numpyro_score.training; "
        "assert 'flax' not in sys.modules; assert len(jax.live_arrays()) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
