"""Tangents of a custom derivative, of which most are known to be zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from numpyro_score._typing import Array, PyTree


def changes(tangents: PyTree) -> bool:
    """Whether any leaf is more than a symbolic zero."""
    leaves = jax.tree.leaves(tangents, is_leaf=_is_symbolic)
    return any(not _is_symbolic(leaf) for leaf in leaves)


def materialize(primals: PyTree, tangents: PyTree) -> PyTree:
    """Return tangents that ``jax.jvp`` takes, with zeros in the place of symbolic ones."""
    return jax.tree.map(_materialize, primals, tangents, is_leaf=_is_symbolic)


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, SymbolicZero)


def _materialize(primal: Array, tangent: Any) -> Any:
    if not _is_symbolic(tangent):
        return tangent
    if jnp.issubdtype(jnp.result_type(primal), jnp.inexact):
        return jnp.zeros_like(primal)
    return np.zeros(jnp.shape(primal), jax.dtypes.float0)
