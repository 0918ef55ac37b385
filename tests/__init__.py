"""Tests, in the rooms of the package.

NumPyro is imported before any test can import ArviZ: the lazy import of ArviZ 1.3 otherwise loads
``numpyro.infer`` twice, and ``az.from_numpyro`` then misses ``numpyro.infer.initialization``.
"""

import numpyro.infer  # noqa: F401
