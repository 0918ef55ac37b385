"""States of kernels in files, without pickle."""

from __future__ import annotations

import os
from typing import Any

import jax
from numpyro.infer.mcmc import MCMCKernel

from numpyro_score._array_file import Leaf, match, read_file, write_file
from numpyro_score._typing import PyTree
from numpyro_score.infer._state_tree import (
    STATE,
    StateFileError,
    class_name,
    describe,
    rebuild,
)


def save_state(path: str | os.PathLike[str], state: PyTree) -> None:
    """Write the state of a kernel to a file, for :func:`load_state` in another process.

    The file holds the arrays and a description of the tree that they belong to, and nothing that
    runs when it is read. It appears whole or not at all.

    :param path: file to write; an existing one is replaced.
    :param state: ``mcmc.post_warmup_state``, ``mcmc.last_state``, or any tree of arrays. Typed and
        legacy random keys come back as what they were.

    >>> import os, tempfile, jax.numpy as jnp
    >>> from numpyro_score.infer import load_state, save_state
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "state.npz")
    ...     save_state(path, {"z": jnp.arange(3.0)})
    ...     load_state(path, like={"z": jnp.zeros(3)})
    {'z': Array([0., 1., 2.], dtype=float32)}
    """
    leaves = [(jax.tree_util.keystr(p), leaf) for p, leaf in jax.tree.leaves_with_path(state)]
    write_file(STATE, path, leaves, {"tree": describe(state), "class": class_name(state)})


def load_state(path: str | os.PathLike[str], like: PyTree | MCMCKernel) -> PyTree:
    """Read what :func:`save_state` wrote.

    :param path: file to read.
    :param like: the kernel that goes on from the state, which need not have run; or a tree of the
        same structure, dtypes and shapes.
    :return: the state, for ``mcmc.post_warmup_state``; ``mcmc.run(state.rng_key)`` then goes on as
        if it had not been interrupted, to the bit.
    :raises StateFileError: a file that is truncated, altered, of another version of the format, or
        the state of another kernel; the message says which.
    """
    leaves, header = read_file(STATE, path)
    if isinstance(like, MCMCKernel):
        return _for_kernel(path, leaves, header, like)
    return match(STATE, path, leaves, like)


def _for_kernel(
    path: str | os.PathLike[str], leaves: list[Leaf], header: dict[str, Any], kernel: MCMCKernel
) -> PyTree:
    name = header["class"]
    if not _belongs(name, kernel):
        raise StateFileError(
            f"{os.fspath(path)} holds a {name}, which is no state of {type(kernel).__name__}: load "
            "it with the kernel that it came from."
        )
    if header["tree"] is None:
        raise StateFileError(
            f"{os.fspath(path)} holds a tree of other nodes than tuples, lists and dicts: pass a "
            "state of the same kernel as `like`."
        )
    packages = {cls.__module__.partition(".")[0] for cls in type(kernel).__mro__} - {"builtins"}
    return rebuild(header["tree"], [leaf.value for leaf in leaves], packages)


def _belongs(name: str, kernel: MCMCKernel) -> bool:
    state_cls = getattr(kernel, "state_cls", None)
    if isinstance(state_cls, type):
        return name == f"{state_cls.__module__}:{state_cls.__qualname__}"
    # A kernel of NumPyro's does not say which state it has, but has it from its own module.
    return name.partition(":")[0] in {cls.__module__ for cls in type(kernel).__mro__}
