"""Metrics, the summary, and the warning of rows that were learned by heart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import EnergyMLP
from numpyro_score.objectives import (
    ContrastiveDivergence,
    DenoisingScoreMatching,
    ExplicitScoreMatching,
)
from numpyro_score.training import FitWarning, fit
from numpyro_score.training._judge import find_fault
from numpyro_score.training.result import Losses, Mean

KEY = jax.random.key(0)
OBJECTIVE = DenoisingScoreMatching(0.5)
DATA = np.random.default_rng(0).normal([3.0, -1.0], size=(300, 2)).astype(np.float32)


def run(data=DATA, objective=OBJECTIVE, **options):
    network = EnergyMLP(2, width=8, depth=1, key=KEY)
    settings = {"num_steps": 20, "chunk_size": 5, "batch_size": 32, "progress_bar": False}
    return fit(KEY, network, data, objective, **settings | options)


def test_metrics_are_those_of_the_validation_rows(tmp_path):
    def energy(network, data):
        return jnp.mean(jax.vmap(network)(data))

    options = {"validation_data": DATA[:50], "metrics": {"energy": energy}}
    path = tmp_path / "fit.npz"
    result = run(checkpoint=path, **options)
    assert result.metrics["energy"].shape == (4,)
    best = int(np.argmin(result.validation_losses))
    np.testing.assert_allclose(
        result.metrics["energy"][best], energy(result.network, DATA[:50]), rtol=1e-5
    )
    again = run(checkpoint=path, **options)
    np.testing.assert_array_equal(again.metrics["energy"], result.metrics["energy"])


def test_bad_metrics():
    with pytest.raises(ValueError, match=r"metric 'rows' must return one number, .* \(30, 2\)"):
        run(metrics={"rows": lambda network, data: data})
    with pytest.raises(TypeError, match="metric 'mean' must be a function"):
        run(metrics={"mean": "mean"})
    with pytest.raises(ValueError, match="either validation_data or a validation_fraction"):
        run(validation_data=DATA, validation_fraction=0.1)


def test_a_last_batch_that_is_not_full_counts_as_it_is():
    result = run(validation_data=DATA[:40], fit_base=False, learning_rate=1e-9)
    parts = [run(validation_data=x, fit_base=False, learning_rate=1e-9) for x in (DATA[:32],)]
    losses = [result.validation_losses[0] * 40, parts[0].validation_losses[0] * 32]
    # Eight more rows, not a second batch of 32.
    assert 0 < losses[0] - losses[1] < 0.5 * losses[1]


def test_losses_before_and_after():
    result = run(num_steps=200, learning_rate=1e-2)
    losses = result.final_losses
    np.testing.assert_allclose(losses.validation_after.value, result.validation_losses.min(), 1e-4)
    assert losses.training_after.value <= losses.training_before.value + losses.training_after.error
    assert run(objective=ContrastiveDivergence(0.1, 2)).final_losses is None
    assert run(validation_fraction=0.0).final_losses is None


def test_rows_learned_by_heart_are_told():
    # Held-out rows of another density: what was learned does not hold for them.
    rng = np.random.default_rng(1)
    modes = np.where(rng.random((2000, 1)) < 0.5, -3.0, 3.0) + 0.1 * rng.normal(size=(2000, 2))
    with pytest.warns(
        FitWarning, match="the loss of held-out rows is .*: most of what was learned"
    ):
        run(
            modes.astype(np.float32),
            num_steps=400,
            learning_rate=1e-2,
            validation_data=rng.normal(size=(500, 2)).astype(np.float32),
        )


@pytest.mark.parametrize(
    ("validation", "error", "is_told"),
    [(0.5, 0.01, False), (0.7, 0.01, True), (0.7, 0.08, False), (0.2, 0.01, False)],
)
def test_fault(validation, error, is_told):
    """From 1.0 to 0.2 on training rows; the gap may be 0.4, and has to be beyond 5 errors."""
    means = [Mean(value, error) for value in (1.0, 1.0, 0.2, validation)]
    assert bool(find_fault(Losses(*means))) == is_told


def test_summary(capsys):
    run(metrics={"mean": lambda network, data: jnp.mean(data)}).print_summary()
    out = capsys.readouterr().out
    names = [line.split()[0] for line in out.splitlines()]
    assert names == ["network", "steps", "loss", "training", "held", "best", "mean"]
    assert "EnergyMLP" in out


def test_messages_name_the_columns():
    network = EnergyMLP(2, width=8, depth=1, columns=["mass", "redshift"], key=KEY)
    with pytest.raises(ValueError, match="columns must be 2 different names"):
        EnergyMLP(2, columns=["mass", "mass"], key=KEY)
    with pytest.raises(TypeError, match="columns must be a list of names"):
        EnergyMLP(2, columns="ab", key=KEY)
    data = DATA.copy()
    data[5, 1] = np.nan
    options = {"num_steps": 2, "progress_bar": False}
    with pytest.raises(ValueError, match="row 5, column 'redshift'"):
        fit(KEY, network, data, OBJECTIVE, **options)
    with pytest.raises(ValueError, match=r"batch 0 .* row 5, column 'redshift'"):
        fit(KEY, network, iter([data]), OBJECTIVE, **options)
    for bad in (np.array([1.0, 0.0]) * DATA, np.ones(2) * DATA[:, :1]):
        with pytest.raises(ValueError, match=r"columns .*'redshift'"):
            fit(KEY, network, bad, ExplicitScoreMatching(), **options)
