"""Draws on disk: those of an uninterrupted run, whatever happens to the process."""

from __future__ import annotations

import json
import os
import pickle
from functools import partial, wraps

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax import random

from numpyro_score.infer import MALA, MCLMC, MCMC, ULA, CheckpointError, open_checkpoint
from numpyro_score.infer._store import Store
from tests.infer.model import Y, model

OPTIONS = {"num_warmup": 20, "num_samples": 40, "num_chains": 2, "chain_method": "vectorized"}
OPTIONS |= {"thinning": 3, "chunk_size": 15, "progress_bar": False}
FIELDS = ("potential_energy", "adapt_state.step_size", "rng_key", "z")
NUM_KEPT = 13


def make(directory=None, kernel=None, **options):
    return MCMC(kernel or MALA(model), **OPTIONS | options, checkpoint=directory)


def run(mcmc, key=0, y=Y):
    mcmc.run(random.key(key), y, extra_fields=FIELDS)
    return outcome(mcmc)


def outcome(mcmc):
    draws, fields = (get(group_by_chain=True) for get in (mcmc.get_samples, mcmc.get_extra_fields))
    return {"draws": draws, "fields": fields, "last": mcmc.last_state}


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = random.key_data(x), random.key_data(y)
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def compiled():
    return make()


def as_made(mcmc):
    """Undo what a test set."""
    mcmc.checkpoint = mcmc.post_warmup_state = None
    mcmc.num_samples = OPTIONS["num_samples"]
    mcmc._plan_default()
    return mcmc


@pytest.fixture(scope="module")
def plain(compiled):
    """The same run in memory; workers share out the tests, so any may have been before it."""
    return run(as_made(compiled))


@pytest.fixture
def mcmc(compiled):
    """One for all tests: it compiles once."""
    return as_made(compiled)


@pytest.fixture
def directory(mcmc, tmp_path):
    """A checkpoint of a finished run."""
    mcmc.checkpoint = str(tmp_path / "run")
    run(mcmc)
    return tmp_path / "run"


def test_draws_are_those_of_a_run_in_memory(mcmc, plain, tmp_path):
    mcmc.checkpoint = str(tmp_path / "run")
    assert_same(run(mcmc), plain)


def test_arviz_opens_the_whole_and_each_file(mcmc, plain, directory):
    data = open_checkpoint(directory)
    for name, values in plain["draws"].items():
        np.testing.assert_array_equal(data["posterior"][name].values, values)
    statistics = data["sample_stats"]
    fields = plain["fields"]
    np.testing.assert_array_equal(statistics["lp"].values, -fields["potential_energy"])
    np.testing.assert_array_equal(statistics["step_size"], fields["adapt_state.step_size"])
    np.testing.assert_array_equal(statistics["diverging"].values, fields["diverging"])
    assert data["posterior"].attrs["complete"] == 1
    assert "biased" not in data["posterior"].attrs
    np.testing.assert_array_equal(data["posterior"]["draw"], np.arange(NUM_KEPT))
    assert len(az.summary(data)) == 5
    first = az.from_netcdf(directory / "draws-000000.nc")
    assert first["posterior"]["x"].shape == (2, 5, 2)


def test_a_finished_run_is_read_and_not_run_again(mcmc, plain, directory, monkeypatch):
    monkeypatch.setattr(Store, "add", lambda *args: pytest.fail("sampled again"))
    assert_same(run(mcmc), plain)


class Killed(BaseException):
    """Not an Exception, as the end of a process is none."""


def replace_until(limit, writes, replace, *args):
    writes.append(1)
    if len(writes) == limit:
        raise Killed
    replace(*args)


def test_killed_before_every_write_it_loses_one_chunk_at_most(mcmc, plain, tmp_path, monkeypatch):
    replace, writes = os.replace, []
    # Set-up writes two files, each of 3 chunks of warm-up one, each of 3 chunks of draws two.
    num_writes = 2 + 3 + 2 * 3
    for limit in range(1, num_writes + 1):
        mcmc.checkpoint = str(tmp_path / str(limit))
        writes.clear()
        monkeypatch.setattr(os, "replace", partial(replace_until, limit, writes, replace))
        with pytest.raises(Killed):
            run(mcmc)
        writes.clear()
        monkeypatch.setattr(os, "replace", partial(replace_until, None, writes, replace))
        assert_same(run(mcmc), plain)
        # A file that did not count is written again, and no more.
        assert limit - 1 + len(writes) <= num_writes + 1
        assert open_checkpoint(mcmc.checkpoint)["posterior"].sizes["draw"] == NUM_KEPT


def test_an_interrupt_leaves_what_there_is_and_can_go_on(mcmc, plain, tmp_path, monkeypatch):
    mcmc.checkpoint = str(tmp_path / "run")
    add = Store.add

    def add_and_stop(self, *args):
        add(self, *args)
        if self.position.kept == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add", add_and_stop)
    with pytest.warns(UserWarning, match="5 of 13 draws per chain are kept"):
        mcmc.run(random.key(0), Y, extra_fields=FIELDS)
    monkeypatch.setattr(Store, "add", add)
    kept = mcmc.get_samples(group_by_chain=True)["x"]
    np.testing.assert_array_equal(kept, plain["draws"]["x"][:, :5])
    assert_same(run(mcmc), plain)


def test_warmup_and_run_each_go_on(mcmc, tmp_path):
    outcomes = []
    for directory in (None, str(tmp_path / "run"), str(tmp_path / "run")):
        mcmc.checkpoint = directory
        mcmc.warmup(random.key(0), Y, extra_fields=FIELDS)
        outcomes.append(run(mcmc, key=1))
    assert_same(outcomes[0], outcomes[1])
    assert_same(outcomes[0], outcomes[2])
    assert (tmp_path / "run" / "warmup" / "state.npz").exists()


def test_chains_of_another_kernel_in_sequence(tmp_path, monkeypatch):
    kernel = MCLMC(potential_fn=lambda z: 0.5 * jnp.sum(z["a"] ** 2))
    mcmc = make(kernel=kernel, chain_method="sequential")

    def run():
        mcmc.run(random.key(0), init_params={"a": jnp.ones((2, 3))})
        return outcome(mcmc)

    expected = run()
    mcmc.checkpoint = str(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", partial(replace_until, 8, [], os.replace))
        with pytest.raises(Killed):
            run()
    assert_same(run(), expected)
    assert_same(run(), expected)
    attributes = open_checkpoint(tmp_path / "run")["posterior"].attrs
    assert attributes["kernel"].endswith("MCLMC")
    assert attributes["biased"] == kernel.bias


def test_it_is_pickled_with_draws_on_disk(mcmc, plain, directory):
    mcmc.run(random.key(0), Y, extra_fields=FIELDS)
    assert_same(outcome(pickle.loads(pickle.dumps(mcmc))), plain)


def test_files_are_few_where_chunks_are_quick(mcmc, plain, tmp_path, monkeypatch):
    init, flush = Store.__init__, Store.flush

    def by_the_clock(self, *args, every_chunk):
        init(self, *args, every_chunk=False)

    def flush_what_is_ours(self):
        views = [x for chunk in self._taken[2] for x in chunk if x.base is not None]
        assert not views, "each would hold the buffer of a whole chunk"
        flush(self)

    monkeypatch.setattr(Store, "__init__", by_the_clock)
    monkeypatch.setattr(Store, "flush", flush_what_is_ours)
    mcmc.checkpoint = str(tmp_path / "run")
    assert_same(run(mcmc), plain)
    assert len(list((tmp_path / "run").glob("draws-*.nc"))) == 1


def test_draws_on_disk_are_not_in_memory(mcmc, tmp_path, monkeypatch):
    most = []
    flush = Store.flush

    def seen(self):
        most.append(sum(chunk[0].shape[1] for chunk in self._taken[2]))
        flush(self)

    monkeypatch.setattr(Store, "flush", seen)
    mcmc.checkpoint = str(tmp_path / "run")
    mcmc.num_samples = 90
    mcmc._plan_default()
    mcmc.run(random.key(0), Y, extra_fields=FIELDS)
    assert max(most) == 5
    assert mcmc._loaded is None, "until it is asked for"
    assert mcmc.get_samples()["x"].shape == (60, 2)


# -- refusals ----------------------------------------------------------------------------------


@wraps(model)
def other_model(y):
    """Of the same name, with the same sites, and another density."""
    numpyro.factor("prior", 0.5)
    model(y)


@pytest.mark.parametrize(
    ("kernel", "what"),
    [
        (MALA(model, target_accept_prob=0.7), "kernel.target_accept_prob: 0.574 there, 0.7 here"),
        (ULA(model), "kernel.class: .*mala.MALA' there, .*ula.ULA' here"),
        (MALA(other_model), r"potential_energy: \[.*\] there, .* here.*Has the model changed"),
    ],
    ids=["option", "kernel", "model"],
)
def test_the_checkpoint_of_another_kernel_is_refused(directory, kernel, what, monkeypatch):
    monkeypatch.setattr(Store, "add", lambda *args: pytest.fail("sampled before it was refused"))
    with pytest.raises(CheckpointError, match=what):
        run(make(directory, kernel))


def test_other_lengths_other_data_or_another_key_is_refused(mcmc, directory, monkeypatch):
    monkeypatch.setattr(Store, "add", lambda *args: pytest.fail("sampled before it was refused"))
    with pytest.raises(CheckpointError, match=r"data: .*another directory, or run with what"):
        run(mcmc, y=Y + 1)
    with pytest.raises(CheckpointError, match="rng_key: "):
        run(mcmc, key=1)
    monkeypatch.setattr(mcmc, "thinning", 2)
    with pytest.raises(CheckpointError, match="thinning: 3 there, 2 here"):
        run(mcmc)
    monkeypatch.undo()
    mcmc.num_samples = 50
    mcmc._plan_default()
    with pytest.raises(CheckpointError, match="num_samples: 40 there, 50 here"):
        run(mcmc)


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def newer(content):
    return json.dumps(json.loads(content) | {"version": 3}).encode()


def test_damage_is_found(mcmc, plain, directory):
    damages = [
        *((name, cut) for name in ("manifest.json", "state.npz", "start.npz", "draws-000001.nc")),
        *((name, flip) for name in ("state.npz", "draws-000001.nc")),
        ("manifest.json", newer),
        ("draws-000000.nc", None),
    ]
    for name, damage in damages:
        path = directory / name
        content = path.read_bytes()
        path.unlink() if damage is None else path.write_bytes(damage(content))
        with pytest.raises(CheckpointError, match=name) as error:
            run(mcmc)
        assert "another directory" in str(error.value) or "version 2" in str(error.value)
        path.write_bytes(content)
    assert_same(run(mcmc), plain)  # put back, all is well
