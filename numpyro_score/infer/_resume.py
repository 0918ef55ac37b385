"""States that a run goes on from."""

from __future__ import annotations

import warnings

import jax
import numpy as np
from numpyro.util import find_stack_level

from numpyro_score._contents import digest_contents
from numpyro_score._typing import PyTree


def other_data(before: PyTree | None, now: PyTree) -> bool:
    """Whether a state belongs to other data: potential and score are then not those of these.

    :param before: arguments of the run that left the state; None where that is not known.
    """
    if before is None:
        return False
    leaves = [jax.tree.leaves(arguments) for arguments in (before, now)]
    if len(leaves[0]) == len(leaves[1]) and all(a is b for a, b in zip(*leaves, strict=True)):
        return False
    return digest_contents(before) != digest_contents(now)


def warn_of_warmup(state: PyTree, num_warmup: int) -> None:
    """Say so where the warm-up is not over in a state that draws are to begin with."""
    taken = np.min(np.asarray(getattr(state, "i", num_warmup)))
    if taken < num_warmup:
        warnings.warn(
            f"post_warmup_state has taken {taken} steps, and the warm-up of this MCMC has "
            f"{num_warmup}: the kernel will go on tuning in the first {num_warmup - taken} draws, "
            f"which are then no draws from the posterior. Take num_warmup={taken}, with which it "
            "was made, or run the whole warm-up again.",
            stacklevel=find_stack_level(),
        )
