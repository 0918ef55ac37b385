"""What only a process of its own can show: its memory, and several devices."""

from __future__ import annotations

import os
import subprocess
import sys

FIT = """
import sys
import jax, numpy as np
from numpyro_score.networks import EnergyMLP
from numpyro_score.objectives import DenoisingScoreMatching
from numpyro_score.training import fit

def run(data, num_steps, **options):
    network = EnergyMLP(data.shape[1], width=16, depth=2, key=jax.random.key(0))
    objective = DenoisingScoreMatching(0.5)
    return fit(jax.random.key(0), network, data, objective, num_steps=num_steps, batch_size=64,
               progress_bar=False, **options)
"""


def python(code, *args, **env):
    done = subprocess.run(
        [sys.executable, "-c", FIT + code, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_large_file_stays_on_disk(tmp_path):
    # 200,000 rows of 32 columns in double precision, and eight times as many. The peak is the
    # kernel's VmHWM: getrusage's begins with what the process that started this one had resident.
    code = """
data = np.lib.format.open_memmap(sys.argv[1], "w+", np.float64, (int(sys.argv[2]), 32))
for first in range(0, len(data), 100_000):
    data[first:first + 100_000] = np.random.default_rng(first).normal(size=(100_000, 32))
data.flush(); del data
run(np.load(sys.argv[1], mmap_mode="r"), 50)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["RssAnon"].split()[0], status["VmHWM"].split()[0])
"""
    anonymous, peak = map(int, python(code, tmp_path / "x.npy", 200_000).split())
    assert peak < 2 * 2**20
    larger, _ = map(int, python(code, tmp_path / "x.npy", 1_600_000).split())
    # The file has 390 MiB more; in memory there are four bytes for each row, to shuffle them.
    assert larger - anonymous < 100 * 2**10


def test_two_devices_learn_what_one_learns():
    code = """
data = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
one = run(data, 30)
two = run(data, 30, devices=jax.devices())
assert len(jax.devices()) == 2
np.testing.assert_allclose(one.losses, two.losses, rtol=1e-4)
for x, y in zip(jax.tree.leaves(one.network), jax.tree.leaves(two.network), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
    assert len(getattr(y, "devices", lambda: {0})()) == 1
"""
    python(code, XLA_FLAGS="--xla_force_host_platform_device_count=2")
