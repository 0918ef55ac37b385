"""What every objective promises, whatever it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import EnergyMLP, ScoreMLP
from numpyro_score.objectives import DenoisingScoreMatching, ExplicitScoreMatching

OBJECTIVES = [DenoisingScoreMatching(0.3), ExplicitScoreMatching()]
EVERY = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
KEY = jax.random.key(0)


def quartic(x):
    return jnp.sum(x**4) / 4


@EVERY
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3), (2, 1, 2)])
def test_energies_and_scores_of_any_event_shape(objective, shape):
    batch = jax.random.normal(KEY, (5, *shape))
    by_energy = objective(quartic, batch, KEY)
    by_score = objective(lambda x: -(x**3), batch, KEY)
    flat = objective(quartic, batch.reshape(5, -1), KEY)
    assert by_energy.shape == (5,)
    np.testing.assert_allclose(by_energy, by_score, rtol=1e-5)
    # Normal draws depend on the shape only through its size.
    np.testing.assert_allclose(by_energy, flat, rtol=1e-5)


@EVERY
def test_conditions_reach_the_network_row_by_row(objective):
    batch, condition = jax.random.normal(KEY, (4, 3)), jnp.arange(4.0)
    losses = objective(lambda x, c: c * jnp.sum(x**2) / 2, batch, KEY, condition)
    for row in range(4):
        alone = objective(lambda x, c=condition[row]: -c * x, batch, KEY)
        np.testing.assert_allclose(losses[row], alone[row], rtol=1e-5)


@EVERY
def test_rows_do_not_depend_on_each_other(objective):
    batch = jax.random.normal(KEY, (4, 3))
    changed = batch.at[0].add(1.0)
    before, after = (objective(quartic, b, KEY) for b in (batch, changed))
    assert before[0] != after[0]
    np.testing.assert_array_equal(before[1:], after[1:])


@EVERY
@pytest.mark.parametrize("cls", [EnergyMLP, ScoreMLP])
def test_gradients_in_the_parameters_are_finite(objective, cls):
    network = cls(3, width=8, key=KEY)
    batch = jax.random.normal(KEY, (4, 3))
    grads = jax.jit(jax.grad(lambda n: jnp.mean(objective(n, batch, KEY))))(network)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert grads.head.any()


@EVERY
def test_objectives_are_values(objective):
    copy = type(objective)(**({"noise_scale": 0.3} if objective.noise_scale else {}))
    assert copy == objective
    assert hash(copy) == hash(objective)


@EVERY
def test_bad_batches(objective):
    with pytest.raises(TypeError, match="batch must hold floating-point numbers"):
        objective(quartic, jnp.zeros((4, 3), int), KEY)
    with pytest.raises(ValueError, match=r"reshape\(-1, 1\)"):
        objective(quartic, jnp.zeros(4), KEY)
    with pytest.raises(ValueError, match="4 examples, 3 conditions"):
        objective(lambda x, c: c * jnp.sum(x), jnp.zeros((4, 2)), KEY, jnp.zeros(3))
    with pytest.raises(ValueError, match="for an energy or"):
        objective(lambda x: x[:1], jnp.zeros((4, 2)), KEY)


@pytest.mark.parametrize("noise_scale", [0.0, -1.0, np.nan, np.inf, True, None])
def test_noise_scale_is_positive(noise_scale):
    with pytest.raises(ValueError, match="noise_scale must be a finite number above 0"):
        DenoisingScoreMatching(noise_scale)


def test_noise_differs_by_key():
    objective, batch = OBJECTIVES[0], jnp.ones((4, 3))
    one, same, other = (objective(quartic, batch, jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()
