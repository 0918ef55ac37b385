"""Data on disk, from an iterator, and over several devices, give what arrays in memory give."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import EnergyMLP, from_function
from numpyro_score.objectives import DenoisingScoreMatching, PersistentContrastiveDivergence
from numpyro_score.training import FitWarning, _data, _judge, _sources, fit
from numpyro_score.training._batch_iterator import BatchIterator

KEY = jax.random.key(0)
OBJECTIVE = DenoisingScoreMatching(0.5)
DATA = np.random.default_rng(0).normal([3.0, -1.0], size=(300, 2)).astype(np.float32)


def run(data=DATA, objective=OBJECTIVE, condition_size=0, **options):
    network = EnergyMLP(2, width=8, depth=1, condition_size=condition_size, key=KEY)
    settings = {"num_steps": 20, "chunk_size": 5, "progress_bar": False} | options
    return fit(KEY, network, data, objective, **settings)


def assert_close(one, other):
    for name in ("losses", "validation_losses"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5)
    leaves = (jax.tree.leaves(result.network) for result in (one, other))
    for x, y in zip(*leaves, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.fixture
def on_disk(tmp_path):
    def save(array, name="data"):
        np.save(tmp_path / f"{name}.npy", array)
        return np.load(tmp_path / f"{name}.npy", mmap_mode="r")

    return save


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation_fraction", [0.0, 0.2])
def test_a_memory_map_takes_the_steps_of_an_array(on_disk, validation_fraction):
    options = {"validation_fraction": validation_fraction, "batch_size": 32}
    assert_close(run(on_disk(DATA), **options), run(**options))


def test_conditions_and_double_precision_on_disk(on_disk):
    condition = np.random.default_rng(1).normal(size=(300, 3))
    files = (on_disk(DATA.astype(float)), on_disk(condition, "condition"))
    options = {"condition_size": 3, "batch_size": 32}
    from_files = run(files[0], condition=files[1], **options)
    assert_close(from_files, run(condition=condition, **options))


def test_a_memory_of_chains_starts_on_rows_of_the_file(on_disk):
    objective = PersistentContrastiveDivergence(0.1, 2, buffer_size=64)
    assert_close(run(on_disk(DATA), objective), run(objective=objective))


def test_the_base_sees_a_sorted_file_as_a_whole(on_disk, monkeypatch):
    monkeypatch.setattr(_sources, "_SAMPLE_ROWS", 30)
    data = np.sort(DATA, axis=0)
    base = run(on_disk(data), batch_size=32, validation_fraction=0.0).network.base
    # Of the first 30 rows the mean is two standard deviations below.
    np.testing.assert_allclose(base.mean, DATA.mean(0), atol=0.3)


def test_bad_numbers_in_a_file_are_found_block_by_block(on_disk, monkeypatch):
    monkeypatch.setattr(_data, "_BLOCK_BYTES", 64)
    data = DATA.copy()
    data[123, 1] = np.inf
    with pytest.raises(ValueError, match=r"from row 120 on .* the first in row 123, column 1;"):
        run(on_disk(data))


def test_a_killed_fit_of_a_file_goes_on(on_disk, tmp_path):
    path, data = tmp_path / "fit.npz", on_disk(DATA)
    expected = run(data, batch_size=32)
    interrupted_after(10, data, path, batch_size=32)
    assert_close(run(data, batch_size=32, checkpoint=path), expected)


def interrupted_after(num_steps, data, path, **options):
    """Leave a checkpoint of the first steps of a fit."""
    loss, count = _judge.Judge.loss, itertools.count(1)

    def interrupt(self, params):
        if next(count) * 5 > num_steps:
            raise KeyboardInterrupt
        return loss(self, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_judge.Judge, "loss", interrupt)
        with pytest.warns(FitWarning, match=f"interrupted after step {num_steps + 5}"):
            run(data, checkpoint=path, **options)


# -- iterators -------------------------------------------------------------------------------------


def batches(num_batches, size=32):
    """Batches whose mean in the first column is their number."""
    rng = np.random.default_rng(1)
    for i in range(num_batches):
        batch = rng.normal(size=(size, 2)).astype(np.float32)
        batch[:, 0] += i - batch[:, 0].mean()
        yield batch


class Loader:
    """What can be iterated over again and again."""

    def __init__(self, num_batches):
        self.num_batches = num_batches

    def __iter__(self):
        return batches(self.num_batches)


def of_first_column(data, num_steps, **options):
    """Fit with a loss that is the mean of the batch, whatever the network."""
    network = from_function(lambda p, x: p * jnp.sum(x), 0.0)

    def objective(network, batch, key):
        return batch[:, 0] + 0.0 * network.params

    settings = {"num_steps": num_steps, "progress_bar": False, "chunk_size": 4}
    return fit(KEY, network, data, objective, **settings | options)


def test_an_iterator_gives_each_step_its_batch():
    result = of_first_column(batches(11), 11)
    np.testing.assert_allclose(result.losses, np.arange(11), atol=1e-5)
    assert result.stopped == "finished"


def test_what_can_be_iterated_over_again_starts_anew():
    result = of_first_column(Loader(3), 8)
    np.testing.assert_allclose(result.losses, [0, 1, 2, 0, 1, 2, 0, 1], atol=1e-5)


def test_an_iterator_may_fill_the_same_array_again():
    def again():
        buffer = np.empty((32, 2), np.float32)
        for batch in batches(8):
            buffer[:] = batch
            yield buffer

    np.testing.assert_allclose(of_first_column(again(), 8).losses, np.arange(8), atol=1e-5)


def test_no_more_is_read_before_the_first_step_than_it_takes():
    read = itertools.count()
    counted = (batch for batch in batches(200) if next(read) >= 0)
    assert run(counted, num_steps=10).num_steps == 10
    assert next(read) == 10
    for num_steps, num_held_out, expected in ((150, 0, 128), (150, 4_100, 129), (100, 4_100, 100)):
        source = BatchIterator(batches(200), None, None, num_steps, num_held_out)
        assert len(source.sample) == 32 * expected
    images = (np.ones((32, 300), np.float32) for _ in range(200))
    assert len(BatchIterator(images, None, None, 200, 0).sample) == 6_016  # 20 for each entry


@pytest.mark.parametrize("num_batches", [8, 10])
def test_an_iterator_that_ends_early_ends_the_fit(num_batches, tmp_path):
    path = tmp_path / "fit.npz"
    with pytest.warns(FitWarning, match=f"data ended after {num_batches} batches"):
        result = of_first_column(batches(num_batches), 20, checkpoint=path)
    assert (result.num_steps, result.stopped) == (num_batches, "exhausted")
    # It goes on where the next iterator has more.
    longer = of_first_column(batches(20), 20, checkpoint=path)
    np.testing.assert_allclose(longer.losses, np.arange(20), atol=1e-5)


def test_iterators_with_conditions_and_validation_rows():
    rng = np.random.default_rng(2)
    condition = rng.normal(size=(300, 3)).astype(np.float32)
    pairs = ((DATA[i : i + 30], condition[i : i + 30]) for i in range(0, 300, 30))
    held_out = (DATA[:45], condition[:45])
    result = run(pairs, condition_size=3, num_steps=10, validation_data=held_out)
    assert result.validation_steps.tolist() == [5, 10]
    assert result.final_losses is not None


def test_a_killed_fit_of_an_iterator_goes_on(tmp_path):
    path, held_out = tmp_path / "fit.npz", {"validation_data": DATA[:40]}
    expected = run(batches(20), **held_out)
    interrupted_after(10, batches(20), path, **held_out)
    assert_close(run(batches(20), checkpoint=path, **held_out), expected)


def test_a_loss_that_is_not_finite_right_after_going_on(tmp_path):
    """The step before is taken again, with the batch that it had."""
    path = tmp_path / "fit.npz"
    bad = [batch + 50 * (i == 10) for i, batch in enumerate(batches(20))]

    def poisoned(network, batch, key):
        return jnp.where(jnp.mean(batch[:, 0]) > 40, jnp.nan, OBJECTIVE(network, batch, key))

    options = {"objective": poisoned, "validation_data": DATA[:40], "fit_base": False}
    with pytest.warns(FitWarning, match="not finite; the last finite network, of step 9"):
        expected = run(iter(bad), **options)
    interrupted_after(10, batches(20), path, **options)
    with pytest.warns(FitWarning, match="not finite; the last finite network, of step 9"):
        result = run(iter(bad), checkpoint=path, **options)
    assert_close(result, expected)


def with_bad_batch(number, bad):
    return (bad if i == number else batch for i, batch in enumerate(batches(20)))


NAN = np.full((32, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (iter(()), ValueError, "the iterator gave no batch at all"),
        (with_bad_batch(0, NAN), ValueError, "batch 0 of data must be finite"),
        (with_bad_batch(2, np.zeros((0, 2))), ValueError, "batch 2 of data must not be empty"),
        (with_bad_batch(2, np.zeros((32, 2), int)), TypeError, "batch 2 .* floating-point"),
        (with_bad_batch(2, np.zeros(32)), ValueError, "batch 2 of data must have the shape"),
        (with_bad_batch(3, DATA[:7]), ValueError, r"batch 3 of data \[\(7, 2\)\]. .*drop_last"),
        (with_bad_batch(0, (DATA, DATA, DATA)), ValueError, "batch 0 .* got 3 parts"),
        (with_bad_batch(0, (DATA, DATA[:5])), ValueError, "300 rows, and its condition 5"),
        (with_bad_batch(0, (DATA, NAN)), ValueError, "the condition in batch 0 .* finite"),
        ([DATA, DATA], TypeError, "NumPy or JAX array, got list"),
        ({"x": DATA}, TypeError, "NumPy or JAX array, got dict"),
    ],
)
def test_bad_batches(data, error, words):
    with pytest.raises(error, match=words):
        run(data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 8}, "batch_size is 8, but the first batch has 32 rows"),
        ({"condition": DATA}, "pairs \\(data, condition\\)"),
        ({"validation_fraction": 0.1}, "batches of an iterator are not split"),
        ({"patience": 3}, "patience needs a validation loss"),
        ({"metrics": {"m": jnp.mean}}, "metrics needs a validation loss"),
        ({"validation_data": DATA[:, :1]}, r"of the shapes \[\(2,\)\]"),
        ({"validation_data": DATA * np.nan}, "validation_data: data must be finite"),
        ({"validation_data": (DATA, DATA)}, "validation_data must have rows like those"),
    ],
)
def test_bad_arguments_beside_an_iterator(options, words):
    with pytest.raises(ValueError, match=words):
        run(batches(20), **options)


def test_a_bad_batch_in_the_middle_keeps_what_was_learned(tmp_path, monkeypatch):
    monkeypatch.setattr(_sources, "_SAMPLE_ROWS", 32)  # or the first look would find it
    path, options = tmp_path / "fit.npz", {"validation_data": DATA[:40]}
    with pytest.raises(ValueError, match="batch 12 of data must be finite") as caught:
        run(with_bad_batch(12, NAN), checkpoint=path, **options)
    assert "had taken 10 steps" in caught.value.__notes__[0]
    assert str(path) in caught.value.__notes__[0]
    goes_on = run(batches(20), checkpoint=path, **options)
    assert_close(goes_on, run(batches(20), **options))
    with pytest.raises(ValueError, match="batch 12") as caught:
        run(with_bad_batch(12, NAN), **options)
    assert "with checkpoint= they would not be lost" in caught.value.__notes__[0]


def test_devices_are_checked():
    with pytest.raises(ValueError, match="multiple of the number of devices, got 3 rows for 2"):
        run(batch_size=3, devices=jax.devices() * 2)
    with pytest.raises(TypeError, match="devices must be a list of devices"):
        run(batch_size=32, devices=["cpu"])
