"""What every objective promises, whatever it computes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import EnergyMLP, ScoreMLP
from numpyro_score.objectives import DenoisingScoreMatching

from .cases import CASES

EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
OF_SCORES = {name: case for name, case in CASES.items() if case.scores}
OF_ENERGIES = {name: case for name, case in CASES.items() if not case.scores}
KEY = jax.random.key(0)


def quartic(x):
    return jnp.sum(x**4) / 4


@EVERY
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3), (2, 1, 2)])
def test_events_of_any_shape(case, shape):
    batch = jax.random.normal(KEY, (5, *shape))
    network = case.network(quartic)
    losses = case.make(shape)(network, batch, KEY)
    # Normal draws depend on the shape only through its size.
    flat = case.make((batch[0].size,))(network, batch.reshape(5, -1), KEY)
    assert losses.shape == (5,)
    assert jnp.isfinite(losses).all()
    np.testing.assert_allclose(losses, flat, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", OF_SCORES.values(), ids=OF_SCORES)
def test_an_energy_and_its_score_are_one(case):
    batch = jax.random.normal(KEY, (5, 3))
    objective = case.make((3,))
    by_energy = objective(case.network(quartic), batch, KEY)
    by_score = objective(case.network(lambda x: -(x**3)), batch, KEY)
    np.testing.assert_allclose(by_energy, by_score, rtol=1e-5)


@pytest.mark.parametrize("case", OF_ENERGIES.values(), ids=OF_ENERGIES)
def test_a_score_where_an_energy_is_needed(case):
    with pytest.raises(ValueError, match=r"takes an energy, which returns.*the shape of a score"):
        case.make((3,))(case.network(lambda x: -x), jnp.zeros((4, 3)), KEY)


@EVERY
def test_conditions_reach_the_network_row_by_row(case):
    batch, condition = jax.random.normal(KEY, (4, 3)), jnp.arange(4.0)
    objective = case.make((3,))
    network = case.network(lambda x, c: c * jnp.sum(x**2) / 2)
    losses = objective(network, batch, KEY, condition)
    for row in range(4):
        one = case.network(lambda x, c=condition[row]: c * jnp.sum(x**2) / 2)
        alone = objective(one, batch, KEY)
        np.testing.assert_allclose(losses[row], alone[row], rtol=1e-5, atol=1e-6)


@EVERY
def test_rows_do_not_depend_on_each_other(case):
    batch = jax.random.normal(KEY, (4, 3))
    changed = batch.at[0].add(1.0)
    objective, network = case.make((3,)), case.network(quartic)
    before, after = (objective(network, b, KEY) for b in (batch, changed))
    assert before[0] != after[0]
    np.testing.assert_array_equal(before[1:], after[1:])


@EVERY
@pytest.mark.parametrize("cls", [EnergyMLP, ScoreMLP])
def test_gradients_in_the_parameters_are_finite(case, cls):
    if cls is ScoreMLP and not case.scores:
        return
    network = cls(3, width=8, key=KEY)
    batch = jax.random.normal(KEY, (4, 3))
    objective = case.make((3,))
    loss = jax.jit(jax.grad(lambda n: jnp.mean(objective(case.network(n), batch, KEY))))
    grads = loss(network)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert grads.head.any()


@EVERY
def test_objectives_are_values(case):
    objective = case.make((3,))
    copy = replace(objective)
    assert copy is not objective
    assert copy == objective
    assert hash(copy) == hash(objective)


@EVERY
def test_bad_batches(case):
    objective, network = case.make((3,)), case.network(quartic)
    with pytest.raises(TypeError, match="batch must hold floating-point numbers"):
        objective(network, jnp.zeros((4, 3), int), KEY)
    with pytest.raises(ValueError, match=r"reshape\(-1, 1\)"):
        objective(network, jnp.zeros(4), KEY)
    conditional = case.network(lambda x, c: c * jnp.sum(x))
    with pytest.raises(ValueError, match="4 examples, 3 conditions"):
        objective(conditional, jnp.zeros((4, 3)), KEY, jnp.zeros(3))
    with pytest.raises(ValueError, match="energy"):
        objective(case.network(lambda x: x[:1]), jnp.zeros((4, 3)), KEY)


@EVERY
def test_randomness_comes_from_the_key(case):
    objective, batch = case.make((3,)), jnp.ones((4, 3))
    # Signs do not show in a diagonal.
    network = case.network(lambda x: quartic(x) + jnp.sum(x) ** 2)
    one, same, other = (objective(network, batch, jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    if case.random:
        assert (one != other).any()


@pytest.mark.parametrize("noise_scale", [0.0, -1.0, np.nan, np.inf, True, None])
def test_noise_scale_is_positive(noise_scale):
    with pytest.raises(ValueError, match="noise_scale must be a finite number above 0"):
        DenoisingScoreMatching(noise_scale)
