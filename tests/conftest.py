"""Settings of a test run."""

import os
from pathlib import Path

# Nearly all the time of the tests is LLVM's, on programs that run for milliseconds, and that the
# next run of the tests needs again.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
