"""Settings of a test run."""

import os
import subprocess
import sys

import jax
import pytest

# Nearly all the time of the tests is XLA's, on programs that run for milliseconds: these flags take
# two thirds of it away. (JAX's cache of compiled programs would spare the next run most of the
# rest; two workers that share one abort.)
_FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def _is_known(flag: str) -> bool:
    """Whether this version of XLA has the flag: with one that it lacks, it aborts."""
    code = "import jax; jax.devices()"
    environment = os.environ | {"XLA_FLAGS": flag}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=False
    )
    return done.returncode == 0


# Here, before any worker starts: they inherit it.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join(flag for flag in _FLAGS if _is_known(flag))


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Each compiled program holds pieces of memory, of which Linux grants a process 65,530."""
    yield
    jax.clear_caches()
