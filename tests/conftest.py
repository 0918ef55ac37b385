"""Settings of a test run."""

import os

# Nearly all the time of the tests is LLVM's, on programs that run for milliseconds. (JAX's cache of
# compiled programs would spare the next run most of it; two workers that share one abort.)
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
