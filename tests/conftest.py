"""Settings of a test run."""

import os

import jax
import pytest

# Nearly all the time of the tests is LLVM's, on programs that run for milliseconds. (JAX's cache of
# compiled programs would spare the next run most of it; two workers that share one abort.)
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Each compiled program holds pieces of memory, of which Linux grants a process 65,530."""
    yield
    jax.clear_caches()
