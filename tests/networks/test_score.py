import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import EnergyMLP, as_score, score_fn


def energy(x):
    return jnp.sum(x**4) / 4


def test_as_score_is_minus_the_gradient():
    x = jnp.array([[1.0, 2.0], [-3.0, 0.5]])
    np.testing.assert_allclose(as_score(energy)(x), -(x**3), rtol=1e-6)


def test_as_score_of_a_conditional_energy():
    score = as_score(lambda x, c: c * jnp.sum(x**2) / 2)
    np.testing.assert_allclose(score(jnp.ones(2), jnp.array(3.0)), [-3.0, -3.0])


def test_as_score_keeps_the_arrays_as_leaves():
    network = EnergyMLP(2, width=4, key=jax.random.key(0))
    ours, theirs = jax.tree.leaves(as_score(network)), jax.tree.leaves(network)
    assert all(a is b for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("output", [lambda x: -x, lambda x: (x, x)])
def test_as_score_refuses_what_is_no_energy(output):
    with pytest.raises(TypeError, match="as_score takes an energy"):
        as_score(output)(jnp.ones(2))


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3)])
def test_score_fn_takes_energies_and_scores(shape):
    x = jnp.arange(1.0, 1.0 + np.prod(shape)).reshape(shape)
    for network in (energy, lambda x: -(x**3)):
        score = score_fn(network, shape)
        np.testing.assert_allclose(score(x), -(x**3), rtol=1e-6)
        np.testing.assert_allclose(jax.jit(jax.vmap(score))(x[None])[0], -(x**3), rtol=1e-6)


def test_score_fn_has_second_derivatives():
    x = jnp.array([1.0, 2.0])
    jacobian = jax.jacfwd(score_fn(energy, (2,)))(x)
    np.testing.assert_allclose(jacobian, -3 * jnp.diag(x**2), rtol=1e-6)


@pytest.mark.parametrize("output", [lambda x: x[:1], lambda x: x[None], lambda x: (x, x)])
def test_score_fn_names_both_shapes(output):
    with pytest.raises(ValueError, match=r"\(\) for an energy or \(2,\) for a score"):
        score_fn(output, (2,))(jnp.ones(2))


def test_score_fn_refuses_other_events():
    with pytest.raises(ValueError, match=r"one event of shape \(2,\), got \(3,\)"):
        score_fn(energy, (2,))(jnp.ones(3))
    with pytest.raises(ValueError, match=r"events of shape \(1,\)"):
        score_fn(energy, ())
