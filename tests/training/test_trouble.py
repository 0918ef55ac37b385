"""Fits that cannot go on: what is kept, and what is said."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from numpyro_score.networks import EnergyMLP, from_function
from numpyro_score.objectives import DenoisingScoreMatching
from numpyro_score.training import FitWarning, _judge, fit

DATA = np.random.default_rng(0).normal(size=(64, 2))


def climb(limit, optimizer=None, **kwargs):
    """Fit one parameter that counts the steps; above ``limit`` its loss is NaN."""
    network = from_function(lambda p, x: p * jnp.sum(x), 0.0)

    def objective(network, batch, key):
        loss = jnp.where(network.params > limit, jnp.nan, -network.params)
        return jnp.full(len(batch), loss)

    settings = {"num_steps": 12, "batch_size": 8, "ema_decay": 0.0, "progress_bar": False}
    settings |= {"optimizer": optimizer or optax.sgd(1.0)} | kwargs
    return fit(jax.random.key(0), network, DATA, objective, **settings)


@pytest.mark.parametrize("validation_fraction", [0.0, 0.2])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 5, 12])
def test_the_last_network_with_a_finite_loss_is_returned(chunk_size, validation_fraction):
    with pytest.warns(FitWarning, match=r"loss .*was not finite.*lower learning_rate"):
        result = climb(3.5, chunk_size=chunk_size, validation_fraction=validation_fraction)
    assert result.stopped == "non_finite"
    assert float(result.network.params) == 3.0
    if validation_fraction == 0:
        np.testing.assert_array_equal(result.losses, [0.0, -1.0, -2.0, -3.0])
        assert result.num_steps == 4


def test_a_first_step_that_is_not_finite_returns_the_initial_network():
    with pytest.warns(FitWarning, match="of step 0, is returned"):
        result = climb(-1.0)
    assert float(result.network.params) == 0.0
    assert (result.num_steps, result.losses.shape) == (0, (0,))
    assert "0 steps, non_finite" in repr(result)


def test_an_update_that_overflows_is_not_kept():
    overflow = optax.stateless(lambda grads, params: jax.tree.map(lambda g: g / 0.0, grads))
    with pytest.warns(FitWarning, match="or a parameter was not finite"):
        result = climb(np.inf, optimizer=overflow, validation_fraction=0.0)
    assert float(result.network.params) == 0.0


def test_a_network_that_diverges_stays_usable():
    network = EnergyMLP(2, width=8, key=jax.random.key(0))
    with pytest.warns(FitWarning, match="non_finite|not finite"):
        result = fit(
            jax.random.key(1),
            network,
            DATA,
            DenoisingScoreMatching(0.1),
            num_steps=200,
            batch_size=16,
            optimizer=optax.sgd(1e6),
            progress_bar=False,
        )
    assert result.stopped == "non_finite"
    assert jnp.isfinite(result.network(jnp.zeros(2)))
    assert np.isfinite(result.losses).all()


def test_an_interrupt_keeps_what_there_is(monkeypatch):
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(_judge.Judge, "loss", interrupted)
    with pytest.warns(FitWarning, match="interrupted after step 6 of 12"):
        result = climb(np.inf, chunk_size=2)
    assert result.stopped == "interrupted"
    assert result.losses.shape == (6,)
    assert result.validation_steps.tolist() == [2, 4]


def test_warnings_point_at_the_caller():
    with pytest.warns(FitWarning) as record:
        climb(3.5)
    assert record[0].filename == __file__
