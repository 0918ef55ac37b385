"""Where draws are written: when, and where not."""

from __future__ import annotations

import importlib.util
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random

from numpyro_score.infer import MALA, MCMC, CheckpointError, _store, open_checkpoint
from numpyro_score.infer._draws import Position
from numpyro_score.infer._store import Store


def test_files_come_more_rarely_the_longer_a_run_takes(tmp_path, monkeypatch):
    seconds, writes = itertools.count(), []
    monkeypatch.setattr(_store, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(_store, "write_file", lambda kind, path, *args: writes.append(path.name))
    store = Store(str(tmp_path / "run"), {}, [], [], every_chunk=False)
    for step in range(20_000):
        store.add(None, Position(steps=step), [])
    # One in 5 seconds until they are a hundredth of the time: 100 + 100 log(20,000 / 500).
    assert 350 < writes.count("state.npz") < 500


def test_directories_that_are_none(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"not empty \(thesis.tex\)"):
        Store(str(tmp_path), {}, [], [], every_chunk=True)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_checkpoint(tmp_path / "nowhere")


def test_sites_named_after_the_axes_of_draws_are_stored_under_another_name(tmp_path):
    def model():
        numpyro.sample("draw", dist.Normal(0.0, 1.0))
        numpyro.deterministic("draw_", jnp.ones(2))

    def run():
        options = {"num_warmup": 5, "num_samples": 4, "progress_bar": False}
        mcmc = MCMC(MALA(model), checkpoint=tmp_path, **options)
        mcmc.run(random.key(0))
        return mcmc.get_samples()

    drawn, read = run(), run()  # the second takes all of them from the file
    stored = open_checkpoint(tmp_path)["posterior"]
    for samples in (drawn, read):
        assert set(samples) == {"draw", "draw_"}
        np.testing.assert_array_equal(stored["draw_"].values[0], samples["draw"])
        np.testing.assert_array_equal(stored["draw__"].values[0], samples["draw_"])


def test_what_cannot_be_stored_is_refused_before_it_runs(tmp_path, monkeypatch):
    def model():
        numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.deterministic("c", jnp.zeros((), jnp.complex64))

    def make(model, **options):
        checkpoint = tmp_path / "run"
        options |= {"num_warmup": 0, "num_samples": 1, "progress_bar": False}
        return MCMC(MALA(model), checkpoint=checkpoint, **options)

    with pytest.raises(TypeError, match="NetCDF has no complex64"):
        make(model).run(random.key(0))
    with pytest.raises(ValueError, match="checkpoint needs chain_method"):
        make(model, num_chains=2, chain_method=jax.vmap)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install h5netcdf h5py"):
        make(model)
