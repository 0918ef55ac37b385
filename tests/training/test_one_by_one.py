"""Steps that are programs of their own are the steps of the loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from numpyro_score.networks import ConvEnergy, EnergyMLP
from numpyro_score.objectives import DenoisingScoreMatching
from numpyro_score.training import FitWarning, fit

DATA = np.random.default_rng(0).normal(size=(100, 4, 4)).astype(np.float32)
SETTINGS = {"num_steps": 12, "batch_size": 32, "chunk_size": 5, "progress_bar": False}


def run(network, data, one_by_one, monkeypatch, **options):
    """Fit in the way that ``one_by_one`` says, or (None) in that which the fit chooses."""
    if one_by_one is not None:
        monkeypatch.setitem(fit.__globals__, "is_slow_in_loops", lambda *_: one_by_one)
    objective = options.pop("objective", DenoisingScoreMatching(0.5))
    return fit(jax.random.key(0), network, data, objective, **SETTINGS | options)


def energy():
    return EnergyMLP(16, width=8, depth=1, key=jax.random.key(1))


@pytest.mark.parametrize("validation_fraction", [0.0, 0.4])
def test_it_is_the_same_fit(validation_fraction, monkeypatch):
    flat = DATA.reshape(-1, 16)
    options = {"validation_fraction": validation_fraction}
    loop, steps = (run(energy(), flat, way, monkeypatch, **options) for way in (False, True))
    np.testing.assert_allclose(steps.losses, loop.losses, rtol=1e-5)
    np.testing.assert_allclose(steps.validation_losses, loop.validation_losses, rtol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (steps.network, loop.network)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_it_stops_at_the_same_step(one_by_one, monkeypatch):
    class Failing(DenoisingScoreMatching):
        def __call__(self, network, batch, key, condition=None):
            losses = super().__call__(network, batch, key, condition)
            return jnp.where(network.head[0] > 0.0055, jnp.nan, losses)

    with pytest.warns(FitWarning, match="finite"):
        result = run(
            energy(), DATA.reshape(-1, 16), one_by_one, monkeypatch,
            objective=Failing(0.5), optimizer=_always(1e-3), validation_fraction=0.0,
        )  # fmt: skip
    assert result.num_steps == 6
    assert np.isfinite(result.losses).all()


def _always(step):
    return optax.stateless(lambda updates, params: jax.tree.map(lambda p: p * 0 + step, params))


def test_convolutions_are_known_by_their_trace(monkeypatch):
    seen = []
    real = fit.__globals__["is_slow_in_loops"]

    def look(*args):
        seen.append(real(*args))
        return seen[-1]

    monkeypatch.setitem(fit.__globals__, "is_slow_in_loops", look)
    run(ConvEnergy((4, 4), width=4, levels=1, key=jax.random.key(1)), DATA, None, monkeypatch)
    run(energy(), DATA.reshape(-1, 16), None, monkeypatch)
    assert seen == [jax.default_backend() == "cpu", False]
