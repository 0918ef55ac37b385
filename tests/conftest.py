"""Settings of a test run."""

import gc
import os
import subprocess
import sys

import jax
import pytest

# Nearly all the time of the tests is XLA's, on programs that run for milliseconds: these flags take
# two thirds of it away.
_FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)

# Tracing makes millions of objects that stay: to look through them is a twentieth of the time.
gc.set_threshold(50_000, 20, 50)


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


@pytest.fixture(scope="session", autouse=True)
def _find_programs_again(tmp_path_factory):
    """Much is compiled again: a quarter of the contracts' time. Workers that share it abort."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Each compiled program holds pieces of memory, of which Linux grants a process 65,530."""
    yield
    jax.clear_caches()
