import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from numpyro_score.networks import EnergyMLP, ScoreMLP, from_function, score_fn
from numpyro_score.objectives import (
    ContrastiveDivergence,
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    PersistentContrastiveDivergence,
)
from numpyro_score.training import FitResult, fit

KEY = jax.random.key(0)
OBJECTIVE = DenoisingScoreMatching(0.5)
DATA = np.random.default_rng(0).normal([3.0, -1.0], size=(300, 2))


def small(cls=EnergyMLP, **kwargs):
    return cls(2, width=8, depth=1, key=jax.random.key(1), **kwargs)


def run(network=None, data=DATA, objective=OBJECTIVE, key=KEY, **kwargs):
    settings = {"num_steps": 20, "batch_size": 32, "progress_bar": False} | kwargs
    return fit(key, small() if network is None else network, data, objective, **settings)


def same(one, other):
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.mark.parametrize("objective", [OBJECTIVE, ExplicitScoreMatching()])
@pytest.mark.parametrize("cls", [EnergyMLP, ScoreMLP])
def test_result(cls, objective):
    result = run(small(cls), objective=objective, num_steps=25, chunk_size=10)
    assert isinstance(result, FitResult)
    assert isinstance(result.network, cls)
    assert result.losses.shape == (25,)
    assert np.isfinite(result.losses).all()
    assert result.validation_losses.shape == (3,)
    assert result.validation_steps.tolist() == [10, 20, 25]
    assert (result.num_steps, result.stopped) == (25, "finished")


def test_base_is_fitted_to_the_training_rows_with_the_noise():
    data = DATA * [1.0, 10.0]
    network = run(data=data, validation_fraction=0.0).network
    covariance = np.cov(data.T, bias=True) + 0.25 * np.eye(2)
    np.testing.assert_allclose(network.base.mean, data.mean(0), rtol=1e-4)
    np.testing.assert_allclose(network.base.precision @ covariance, np.eye(2), atol=1e-3)
    kept = run(fit_base=False).network
    np.testing.assert_array_equal(kept.base.mean, np.zeros(2))


def test_few_rows_are_one_batch():
    by_itself, told = (run(data=DATA[:100], batch_size=size) for size in (None, 90))
    assert same(by_itself.network, told.network)
    without = run(data=DATA[:100], batch_size=None, validation_fraction=0.0)
    assert same(
        without.network, run(data=DATA[:100], batch_size=100, validation_fraction=0.0).network
    )


def test_no_optimizer_moves_the_base():
    network = small().fit_base(DATA)
    result = run(network, fit_base=False, optimizer=optax.adamw(0.1, weight_decay=0.5))
    assert same(result.network.base, network.base)
    assert not same(result.network.layers, network.layers)


def test_arguments_are_left_alone():
    network, data = small(), jnp.asarray(DATA)
    before = jax.tree.map(np.array, network)
    run(network, data)
    assert same(network, before)
    np.testing.assert_array_equal(data, jnp.asarray(DATA))


def test_key_decides_and_legacy_keys_are_keys():
    typed = run(key=jax.random.key(5))
    assert same(typed.network, run(key=jax.random.key(5)).network)
    assert same(typed.network, run(key=jax.random.PRNGKey(5)).network)
    assert not same(typed.network, run(key=jax.random.key(6)).network)


@pytest.mark.parametrize("chunk_size", [1, 7, 20])
def test_chunks_do_not_change_the_steps(chunk_size):
    one = run(validation_fraction=0.0, chunk_size=20)
    other = run(validation_fraction=0.0, chunk_size=chunk_size)
    np.testing.assert_array_equal(one.losses, other.losses)
    assert same(one.network, other.network)


def test_float64_data_is_converted_as_jax_converts_it():
    assert DATA.dtype == np.float64
    dtype = jnp.result_type(float)
    assert run().losses.dtype == dtype
    assert all(p.dtype == dtype for p in jax.tree.leaves(run().network))


def test_images_and_plain_functions():
    images = np.random.default_rng(0).normal(size=(64, 4, 3))
    network = from_function(lambda p, x: -p * x, np.ones((4, 3)))
    result = run(network, images, learning_rate=0.05, num_steps=200, validation_fraction=0.0)
    # The blurred data have the precision 1 / (1 + 0.5²); one row in √64 is the precision of 0.8.
    assert abs(float(jnp.mean(result.network.params)) - 0.8) < 0.8 / np.sqrt(64)


def test_conditional_network_learns_the_condition():
    rng = np.random.default_rng(0)
    condition = rng.choice([-2.0, 2.0], size=(400, 1))
    data = condition + 0.3 * rng.normal(size=(400, 1))
    network = EnergyMLP(1, width=16, condition_size=1, key=KEY)
    result = run(network, data, condition=condition, num_steps=300, learning_rate=1e-2)
    score = score_fn(result.network, (1,))
    for c in (-2.0, 2.0):
        # The mean of the data given c is c: the score points there from either side.
        assert score(jnp.array([c - 1.0]), jnp.array([c]))[0] > 0
        assert score(jnp.array([c + 1.0]), jnp.array([c]))[0] < 0


@pytest.mark.parametrize("cls", [EnergyMLP, ScoreMLP])
def test_fit_learns_what_the_gaussian_base_cannot(cls):
    rng = np.random.default_rng(0)
    data = np.where(rng.random((2000, 1)) < 0.3, -2.0, 2.0) + 0.3 * rng.normal(size=(2000, 1))
    network = cls(1, width=32, key=KEY)
    result = run(network, data, num_steps=600, batch_size=128, learning_rate=1e-2)
    variance = 0.3**2 + 0.5**2

    def log_density(x):
        left = jnp.log(0.3) - (x[0] + 2.0) ** 2 / (2 * variance)
        return jnp.logaddexp(left, jnp.log(0.7) - (x[0] - 2.0) ** 2 / (2 * variance))

    blurred = jnp.asarray(data + 0.5 * rng.normal(size=data.shape))
    target = jax.vmap(jax.grad(log_density))(blurred)

    def divergence(network):
        return float(jnp.mean((jax.vmap(score_fn(network, (1,)))(blurred) - target) ** 2)) / 2

    base = network.fit_base(data, 0.5)
    assert divergence(result.network) < 0.05 * divergence(base)


def counted(learning_rate=0.1):
    """One parameter on its way to 1: after t steps it is 1 - (1 - learning_rate)^t."""
    network = from_function(lambda p, x: p * jnp.sum(x), 0.0)

    def objective(network, batch, key):
        return jnp.full(len(batch), (network.params - 1.0) ** 2 / 2)

    return {"network": network, "objective": objective, "optimizer": optax.sgd(learning_rate)}


def test_steps_and_losses_follow_the_recursion():
    result = run(**counted(), ema_decay=0.0, validation_fraction=0.0)
    steps = 1 - 0.9 ** np.arange(21)
    np.testing.assert_allclose(result.losses, (steps[:-1] - 1) ** 2 / 2, rtol=1e-5)
    np.testing.assert_allclose(result.network.params, steps[-1], rtol=1e-5)


def test_average_follows_the_recursion():
    result = run(**counted(), ema_decay=0.5, validation_fraction=0.0)
    average = 0.0
    for t in range(20):
        decay = min(0.5, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * (1 - 0.9 ** (t + 1))
    np.testing.assert_allclose(result.network.params, average, rtol=1e-5)


def test_default_learning_rate_and_schedule():
    problem = counted() | {"optimizer": None}
    slow, default, fast = (run(**problem, learning_rate=r) for r in (1e-4, None, 1e-3))
    assert same(default.network, fast.network)
    assert not same(default.network, slow.network)


def test_best_network_on_validation_rows_is_returned():
    # Uphill: each evaluation is worse than the one before.
    result = run(**counted(learning_rate=-0.1), ema_decay=0.0, chunk_size=5)
    assert (np.diff(result.validation_losses) > 0).all()
    np.testing.assert_allclose(result.network.params, 1 - 1.1**5, rtol=1e-5)


def test_patience_stops():
    result = run(**counted(learning_rate=-0.1), chunk_size=2, patience=3)
    assert result.stopped == "patience"
    assert result.num_steps == len(result.losses) == 8
    assert run(**counted(), chunk_size=2, patience=3).stopped == "finished"


def test_validation_rows_are_not_trained_on():
    seen = []

    def objective(network, batch, key):
        jax.debug.callback(lambda b: seen.append(set(map(float, b[:, 0]))), batch, ordered=True)
        return OBJECTIVE(network, batch, key)

    data = np.stack([np.arange(40.0), np.arange(40.0) * 7 % 40], axis=1)
    settings = {"num_steps": 50, "chunk_size": 10, "batch_size": 8, "validation_fraction": 0.25}
    run(data=data, objective=objective, **settings)
    jax.effects_barrier()
    # After every 10 batches of training rows comes the validation; its 10 rows were cut to 8. What
    # follows are the losses before and after.
    del seen[55:]
    validation, training = seen[10::11], [rows for i, rows in enumerate(seen) if i % 11 != 10]
    assert len(validation) == 5
    assert all(rows == validation[0] for rows in validation)
    assert len(validation[0]) == 8
    assert set().union(*training) == set(range(40)) - validation[0]


def test_repr_says_what_happened():
    text = repr(run(num_steps=30, chunk_size=10))
    assert text.startswith("FitResult(EnergyMLP, 30 steps, finished, loss ")
    assert "best validation loss" in text
    assert run(**counted(learning_rate=-0.1), chunk_size=5).best_step == 5
    assert "validation" not in repr(run(validation_fraction=0.0))


def test_progress_bar(capsys):
    run()
    assert capsys.readouterr().err == ""
    run(progress_bar=True)
    shown = capsys.readouterr().err
    assert "20/20" in shown
    assert "loss=" in shown
    assert "val=" in shown


def test_result_network_passes_jit():
    network = run().network
    params, rest = eqx.partition(network, eqx.is_array)
    energy = jax.jit(lambda p, x: eqx.combine(p, rest)(x))(params, jnp.ones(2))
    np.testing.assert_allclose(energy, network(jnp.ones(2)), rtol=1e-5)


@pytest.mark.parametrize("persistent", [False, True])
def test_an_objective_whose_value_tells_nothing_does_not_choose(persistent):
    cd = PersistentContrastiveDivergence if persistent else ContrastiveDivergence
    result = run(objective=cd(0.1, 2), chunk_size=4)
    assert len(result.validation_losses) == 5
    assert result.best_step is None
    assert "best" not in repr(result)
    # The last average, as without validation rows; those rows are then trained on, too.
    assert same(result.network, last_average(cd(0.1, 2)))
    with pytest.raises(ValueError, match="patience needs a loss that is lower for better"):
        run(objective=cd(0.1, 2), patience=3)


def last_average(objective):
    """The network after all steps: with one chunk there is one evaluation, at the end."""
    return run(objective=objective, chunk_size=20).network


def test_a_memory_goes_from_step_to_step():
    class Counting:
        """The loss is the number of steps so far, by its memory."""

        def init_memory(self, rng_key, data, condition=None):
            return jnp.float32(0.0)

        def update(self, network, batch, key, memory, condition=None):
            return self(network, batch, key) * 0.0 + memory, memory + 1.0

        def __call__(self, network, batch, key, condition=None):
            return jax.vmap(network)(batch)

    np.testing.assert_array_equal(run(objective=Counting(), chunk_size=7).losses, np.arange(20.0))
