"""Runs of other processes that are killed at any moment, and draws that outgrow the memory."""

from __future__ import annotations

import os
import random as python_random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import infer as theirs

from numpyro_score._array_file import read_file
from numpyro_score.infer import MALA, MCMC
from numpyro_score.infer._draws import Draws
from numpyro_score.infer._state_tree import STATE
from numpyro_score.infer._store import Store
from tests.infer.model import Y, model

ROOT = Path(__file__).parents[2]
NUM_WARMUP, NUM_SAMPLES, CHUNK_SIZE = 1000, 3000, 10
OPTIONS = {"num_warmup": NUM_WARMUP, "num_samples": NUM_SAMPLES, "num_chains": 2}
OPTIONS |= {"progress_bar": False}
CASES = {
    "pooled": (
        lambda: MALA(model, adaptation="pooled"),
        {"chain_method": "vectorized", "thinning": 7},
    ),
    "nuts": (lambda: theirs.NUTS(model), {"chain_method": "sequential"}),
}


def run(name, directory, chunk_size):
    kernel, options = CASES[name]
    checkpoint = Path(directory, name)
    mcmc = MCMC(kernel(), **OPTIONS, **options, checkpoint=checkpoint, chunk_size=chunk_size)
    go_through(mcmc, name)
    return mcmc


def go_through(mcmc, name):
    mcmc.post_warmup_state = None
    if name == "nuts":
        mcmc.warmup(random.key(0), Y)
    mcmc.run(random.key(0), Y, extra_fields=("potential_energy",))


def finish(directory):
    """Go on with all runs, in longer chunks, and compare them with runs that nothing interrupts."""
    for name in CASES:
        mcmc = run(name, directory, None)
        ours = outcome(mcmc)
        mcmc.checkpoint = None
        go_through(mcmc, name)
        jax.tree.map(assert_same, ours, outcome(mcmc))


def outcome(mcmc):
    return [mcmc.last_state, mcmc.get_samples(), mcmc.get_extra_fields()]


def assert_same(x, y):
    assert x.dtype == y.dtype
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x, y = random.key_data(x), random.key_data(y)
    np.testing.assert_array_equal(x, y)


def other_process(call, errors):
    code = f"from tests.infer.test_long_runs import *; {call}"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": str(python_random.randrange(2**32))},
        stderr=errors,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_processes_that_are_killed_at_any_moment(tmp_path):
    # In the warm-up of `run` or in its draws; in the call of `warmup`.
    stores = {"pooled": tmp_path / "pooled", "nuts": tmp_path / "nuts" / "warmup"}
    moments = {"pooled": python_random.uniform(0, 1400), "nuts": python_random.uniform(0, 800)}
    with open(tmp_path / "errors", "w+") as errors:
        victims = {
            name: other_process(f"run({name!r}, {str(tmp_path)!r}, {CHUNK_SIZE})", errors)
            for name in CASES
        }
        kill_at(moments, victims, stores)
        process = other_process(f"finish({str(tmp_path)!r})", errors)
        process.wait(timeout=240)
        errors.seek(0)
        assert process.returncode == 0, f"{moments}\n{errors.read()}"


def kill_at(moments, victims, stores):
    alive = set(victims)
    deadline = time.monotonic() + 240
    try:
        while alive and time.monotonic() < deadline:
            for name in sorted(alive):
                if steps_of(stores[name]) > moments[name]:
                    victims[name].send_signal(signal.SIGKILL)
                    alive.remove(name)
            time.sleep(python_random.uniform(0, 0.01))
    finally:
        for victim in victims.values():
            victim.kill()
    assert {victim.wait() for victim in victims.values()} == {-signal.SIGKILL}
    assert not alive


def steps_of(directory):
    if not (directory / "state.npz").exists():
        return 0
    return read_file(STATE, directory / "state.npz")[1]["position"][0]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the memory from Linux")
def test_memory_does_not_grow_with_the_number_of_draws(tmp_path, monkeypatch):
    num_samples, size = 300, 100_000
    draws = 4 * size * num_samples

    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.deterministic("large", x + jnp.arange(size, dtype=jnp.float32))

    mcmc = MCMC(
        MALA(model),
        num_warmup=0,
        num_samples=num_samples,
        chunk_size=5,
        progress_bar=False,
    )
    seen = []

    def grown(kind, checkpoint):
        """Return by how much the memory grows from the second quarter of the run to the last."""
        add = kind.add

        def add_and_look(self, *args):
            add(self, *args)
            seen.append(resident_memory())

        with monkeypatch.context() as patch:
            patch.setattr(kind, "add", add_and_look)
            seen.clear()
            mcmc.checkpoint = checkpoint
            mcmc.run(random.key(0))
        quarters = np.array(seen).reshape(4, -1)
        return np.median(quarters[3]) - np.median(quarters[1])

    on_disk, in_memory = grown(Store, str(tmp_path / "run")), grown(Draws, None)
    assert on_disk < 0.15 * draws
    assert in_memory > 0.35 * draws, "a run in memory shows what is looked for"


def resident_memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
