"""Copies of kernels that can be initialized without a trace left on the original."""

from __future__ import annotations

import copy
from typing import Any

import jax
from numpyro.infer import AIES, ESS, HMC, SA, BarkerMH, DiscreteGibbs, Gibbs
from numpyro.infer.mcmc import MCMCKernel

from numpyro_score.infer.adapter import BlackJAXKernel

# Kernels that may be initialized inside a trace: all they remember is on themselves.
_TRACEABLE = (BlackJAXKernel, HMC, SA, BarkerMH, AIES, ESS)
_COMPOSITE = (Gibbs, DiscreteGibbs)


def fresh(kernel: MCMCKernel) -> MCMCKernel:
    """Return a copy of a kernel, and of the kernels that it holds, whose ``init`` changes no other.

    A copy is made as a pickle is, so that closures of an earlier ``init`` are left behind.
    """
    new = copy.copy(kernel)
    for name, value in vars(new).items():
        setattr(new, name, _fresh_value(value))
    return new


def _fresh_value(value: Any) -> Any:
    if isinstance(value, MCMCKernel):
        return fresh(value)
    if type(value) in (list, tuple):
        return type(value)(_fresh_value(item) for item in value)
    if type(value) is dict:
        return {name: _fresh_value(item) for name, item in value.items()}
    return value


def is_traceable(kernel: MCMCKernel) -> bool:
    """Whether ``init`` of this kernel is known to leave nothing behind but on the kernel."""
    if type(kernel) in _COMPOSITE:
        values = jax.tree.leaves(list(vars(kernel).values()), is_leaf=_is_kernel)
        return all(is_traceable(value) for value in values if _is_kernel(value))
    return isinstance(kernel, _TRACEABLE)


def _is_kernel(value: Any) -> bool:
    return isinstance(value, MCMCKernel)
