"""What a user must hear after a run without having asked.

Chains that stood still, and what the kernel has to say of itself.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import find_stack_level, nested_attrgetter

from numpyro_score._typing import PyTree

# A chain that refuses as many proposals in a row is not one that was unlucky.
_LEAST_STEPS = 100
_MAX_NAMED = 8


class Departure(NamedTuple):
    """Where chains were before the first draw that was kept.

    - **step** - steps taken until then.
    - **positions** - see :func:`positions`.
    """

    step: int
    positions: np.ndarray


def positions(kernel: MCMCKernel, states: list[PyTree], batched: bool) -> np.ndarray:
    """Return the continuous values that the kernel moves, ``(chains, d)``.

    What is discrete is left out, as it may well stay where it is.

    :param states: of the chains, one by one; or, ``batched``, of all of them as one.
    """

    def flat(state: PyTree) -> np.ndarray:
        leaves = jax.tree.leaves(nested_attrgetter(kernel.sample_field)(state))
        leaves = [np.asarray(leaf) for leaf in leaves]
        leaves = [x.reshape(len(x) if batched else 1, -1) for x in leaves if x.dtype.kind == "f"]
        return np.concatenate(leaves, axis=1) if leaves else np.empty((1, 0))

    return np.concatenate([flat(state) for state in states])


def stood_still(before: Departure, step: int, after: np.ndarray) -> str | None:
    """Return what there is to say of chains whose positions are the same to the bit."""
    num_steps = step - before.step
    chains = np.flatnonzero((before.positions == after).all(1))
    if not (after.shape[1] and len(chains) and num_steps >= _LEAST_STEPS):
        return None
    named = ", ".join(map(str, chains[:_MAX_NAMED])) + (", …" if len(chains) > _MAX_NAMED else "")
    return (
        f"chain {named} (counting from 0) did not move in {num_steps} steps: the draws say "
        "nothing. Take a smaller step size or a longer warm-up, start elsewhere, and look whether "
        "the density is finite around that place."
    )


def warn_of_run(kernel: MCMCKernel, last_state: Any, still: str | None) -> None:
    """Warn of chains that stood still, and of what the kernel remarks on the last state."""
    of_kernel = getattr(kernel, "remarks", None)
    for remark in [still, *(of_kernel(last_state) if of_kernel else ())]:
        if remark is not None:
            warnings.warn(remark, stacklevel=find_stack_level())
