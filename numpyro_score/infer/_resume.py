"""States that a run goes on from."""

from __future__ import annotations

import warnings
from itertools import count
from typing import Any

import jax
import numpy as np
from numpyro.util import find_stack_level, is_prng_key

from numpyro_score._array_file import key_digest
from numpyro_score._contents import digest_contents
from numpyro_score._typing import Array, PyTree

_INNER = 2**31 - 1


def with_key(state: Any, rng_key: Array) -> Any:
    """Return the state that a run goes on from, with the key of that run.

    Kernels inside of others, such as the blocks of ``Gibbs``, have keys of their own. Were these
    left as they are, runs from one state would draw the same whatever their keys. A run that goes
    on with the key of the state itself changes nothing.
    """
    own, state = state.rng_key, state._replace(rng_key=rng_key)
    if own.shape == rng_key.shape and key_digest(own) == key_digest(rng_key):
        return state
    number = count()

    def follow(path: Any, leaf: Any) -> Any:
        is_own = len(path) == 1 or getattr(path[-1], "name", "") != "rng_key"
        if is_own or leaf.shape != rng_key.shape or leaf.dtype != rng_key.dtype:
            return leaf
        i = next(number)
        return (
            _inner(rng_key, i) if is_prng_key(rng_key) else jax.vmap(_inner, (0, None))(rng_key, i)
        )

    return jax.tree_util.tree_map_with_path(follow, state)


def _inner(rng_key: Array, number: int) -> Array:
    # In two turns: `split` of the outer key gives what `fold_in` of a small number does.
    return jax.random.fold_in(jax.random.fold_in(rng_key, _INNER), number)


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
