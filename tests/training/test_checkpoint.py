"""A fit that was killed goes on to the network that it would have learned."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from numpyro_score.networks import (
    EnergyMLP,
)
from numpyro_score.objectives import (
    DenoisingScoreMatching,
    NoiseContrastiveEstimation,
    PersistentContrastiveDivergence,
)
from numpyro_score.training import CheckpointError, FitWarning, _checkpoint, _judge, _run, fit

KEY = jax.random.key(0)
DATA = np.random.default_rng(0).normal([3.0, -1.0], size=(300, 2))


def run(
    path,
    objective=DenoisingScoreMatching(0.5),  # noqa: B008
    data=DATA,
    key=KEY,
    width=8,
    activation=jax.nn.silu,
    **options,
):
    network = EnergyMLP(2, width=width, depth=1, activation=activation, key=KEY)
    settings = {"num_steps": 40, "batch_size": 32, "chunk_size": 4, "progress_bar": False}
    return fit(key, network, data, objective, checkpoint=path, **settings | options)


def same(one, other):
    histories = ("losses", "validation_losses", "validation_steps", "num_steps", "stopped")
    return all(
        map(np.array_equal, jax.tree.leaves(one.network), jax.tree.leaves(other.network))
    ) and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in histories)


class Killed(BaseException):
    """Nothing catches it, as nothing catches a signal."""


@pytest.fixture
def every_chunk(monkeypatch):
    monkeypatch.setattr(_checkpoint, "_SECONDS", 0.0)
    monkeypatch.setattr(_checkpoint, "_SHARE", 1e9)


@pytest.fixture
def kill(monkeypatch):
    """Kill the fit at the n-th chunk from now, before or after it is computed."""
    real = _run.run_chunk

    def kill(after):
        left = [after]

        def chunk(*args):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*args)

        monkeypatch.setattr(_run, "run_chunk", chunk)

    yield kill
    monkeypatch.setattr(_run, "run_chunk", real)


@pytest.mark.parametrize(
    "objective",
    [
        DenoisingScoreMatching(0.5),
        PersistentContrastiveDivergence(0.1, 2, buffer_size=50),
    ],
    ids=["without memory", "with memory"],
)
def test_a_killed_fit_goes_on_to_the_same_network(objective, tmp_path, every_chunk, kill):
    whole = run(None, objective)
    for after in (0, 1, 3, 3):
        kill(after)
        with pytest.raises(Killed):
            run(tmp_path / "fit", objective)
    kill(1_000)
    again = run(tmp_path / "fit", objective)
    assert same(again, whole)
    # It is over: nothing is computed any more.
    kill(0)
    assert same(run(tmp_path / "fit", objective), whole)


def test_an_interrupted_fit_goes_on(tmp_path, monkeypatch):
    whole = run(None)
    real, left = _run.run_chunk, [3]

    def chunk(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(_run, "run_chunk", chunk)
    with pytest.warns(FitWarning, match="interrupted after step 12 of 40"):
        part = run(tmp_path / "fit")
    assert part.num_steps == 12
    monkeypatch.undo()
    assert same(run(tmp_path / "fit"), whole)


def test_an_interrupt_before_the_validation_loss_loses_none(tmp_path, monkeypatch, every_chunk):
    whole = run(None)
    real, left = _judge.Judge.loss, [3]

    def validation_loss(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(_judge.Judge, "loss", validation_loss)
    with pytest.warns(FitWarning, match="interrupted after step 16 of 40"):
        run(tmp_path / "fit")
    left[0] = 1_000
    assert same(run(tmp_path / "fit"), whole)


def test_a_fit_that_stopped_early_is_over(tmp_path, every_chunk):
    options = {"patience": 1, "optimizer": optax.adam(0.5)}
    first = run(tmp_path / "fit", **options)
    assert first.stopped == "patience"
    assert same(run(tmp_path / "fit", **options), first)


def test_a_fit_that_was_not_finite_says_so_again(tmp_path):
    options = {"optimizer": optax.sgd(1e30)}
    for _ in range(2):
        with pytest.warns(FitWarning, match="was not finite"):
            result = run(tmp_path / "fit", **options)
        assert result.stopped == "non_finite"


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.training.test_checkpoint import run
run(sys.argv[1], num_steps=200_000, chunk_size=100)
"""


def test_a_signal_leaves_a_whole_file(tmp_path, every_chunk):
    path = tmp_path / "fit"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), root])
    try:
        deadline = time.monotonic() + 120
        while not path.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "no checkpoint was written"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(CheckpointError, match=r"another fit \(chunk_size: 100 there, 4 here; num_"):
        run(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": DATA + 1.0}, "data: "),
        ({"key": jax.random.key(1)}, "rng_key: "),
        ({"batch_size": 16}, "batch_size: 32 there, 16 here"),
        ({"objective": DenoisingScoreMatching(0.4)}, "noise_scale=0.5.* there"),
        ({"num_steps": 60}, "num_steps: 40 there, 60 here"),
        ({"width": 9}, "weights: "),
        ({"activation": jnp.tanh}, r"another fit \(structure: \S+ there, \S+ here\)"),
        ({"learning_rate": 0.01}, "learning_rate: 0.001 there, 0.01 here"),
        (
            {"optimizer": optax.sgd(0.1)},
            "optimizer: .the default. there, .one that was given. here",
        ),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused(options, message, tmp_path):
    run(tmp_path / "fit")
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path / "fit", **options)


def test_an_optimizer_with_another_state_is_refused(tmp_path):
    run(tmp_path / "fit", optimizer=optax.adam(0.1))
    with pytest.raises(CheckpointError, match="holds something else than was asked for"):
        run(tmp_path / "fit", optimizer=optax.sgd(0.1))


def noise_at(loc, scale=1.0, family=dist.Normal):
    noise = family(jnp.full(2, loc), jnp.full(2, scale)).to_event(1)
    return NoiseContrastiveEstimation(noise, ranking=True)


def test_an_objective_with_another_noise_is_refused(tmp_path):
    first = run(tmp_path / "fit", noise_at(3.0))
    for other in (noise_at(2.9), noise_at(1.0, 3.0), noise_at(3.0, family=dist.Laplace)):
        with pytest.raises(
            CheckpointError, match=r"another fit \(contents of the objective: \S+ there"
        ):
            run(tmp_path / "fit", other)
    assert same(run(tmp_path / "fit", noise_at(3.0)), first)


def test_the_file_of_an_older_version_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(_checkpoint, "_FILE", _checkpoint._FILE._replace(version=1))
        run(tmp_path / "fit")
    with pytest.raises(CheckpointError, match="version 1 of the format, this package reads"):
        run(tmp_path / "fit")


def test_a_damaged_file_is_refused(tmp_path):
    run(tmp_path / "fit")
    content = (tmp_path / "fit").read_bytes()
    (tmp_path / "fit").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        CheckpointError, match=r"not written by fit\(\.\.\., checkpoint=\.\.\.\), or"
    ):
        run(tmp_path / "fit")


def test_a_folder_that_is_not_there_is_told_before_any_step(tmp_path, kill):
    kill(0)
    with pytest.raises(ValueError, match=r"make .*nowhere first"):
        run(tmp_path / "nowhere" / "fit")


def test_a_disk_that_is_full_ends_neither_the_fit_nor_an_interrupt(
    tmp_path, monkeypatch, every_chunk
):
    whole, real, calls = run(None), _checkpoint.write_file, []

    def full(*args):
        calls.append(args)
        if len(calls) <= 2:
            raise OSError("disk full")
        real(*args)

    monkeypatch.setattr(_checkpoint, "write_file", full)
    with pytest.warns(FitWarning, match=r"could not be written \(disk full\)") as told:
        assert same(run(tmp_path / "fit"), whole)
    assert [warning.filename for warning in told] == [__file__]
    assert same(run(tmp_path / "fit"), whole)

    def interrupt(*args):
        raise KeyboardInterrupt

    calls.clear()
    monkeypatch.setattr(_run, "run_chunk", interrupt)
    with pytest.warns(FitWarning) as told:
        assert run(tmp_path / "other", validation_fraction=0.0).stopped == "interrupted"
    assert ["could not be written" in str(warning.message) for warning in told] == [True, False]
