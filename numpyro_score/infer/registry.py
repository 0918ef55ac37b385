"""Kernels by name, ours and those of others."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from numpyro.infer.mcmc import MCMCKernel

from numpyro_score.infer.algorithm import kernel_from_algorithm

NEEDS = ("gradient", "tuning", "several chains", "minibatches")
_KERNELS: dict[str, KernelInfo] = {}
_Kernel = TypeVar("_Kernel")


class KernelInfo(NamedTuple):
    """What the registry knows of a kernel.

    - **kernel** - the class, to be called with a model.
    - **description** - one line.
    - **needs** - some of ``"gradient"``, ``"tuning"``, ``"several chains"``, ``"minibatches"``.
    - **reference** - where it is from.
    """

    kernel: type[MCMCKernel]
    description: str
    needs: tuple[str, ...]
    reference: str


class KernelTable(dict[str, KernelInfo]):
    """Kernels by name; prints as a table."""

    def __str__(self) -> str:
        rows = [(n, i.description, ", ".join(i.needs), i.reference) for n, i in self.items()]
        rows.insert(0, ("name", "what it is", "needs", "reference"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        pad = lambda row: "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))  # noqa: E731
        return "\n".join(pad(row).rstrip() for row in rows)


def register_kernel(
    name: str,
    kernel: Any = None,
    *,
    description: str,
    needs: Sequence[str] = ("gradient", "tuning"),
    reference: str = "",
    **options: Any,
) -> Callable[[_Kernel], _Kernel]:
    """Register a kernel under a name; also a decorator of a class.

    :param name: lower-case name, not taken yet.
    :param kernel: a subclass of ``numpyro.infer.mcmc.MCMCKernel``; or a BlackJAX-style algorithm
        with ``init`` and ``build_kernel``, of which :func:`kernel_from_algorithm` makes one.
    :param description: one line for :func:`available_kernels`.
    :param needs: some of ``"gradient"``, ``"tuning"``, ``"several chains"``, ``"minibatches"``.
    :param reference: paper or page.
    :param options: passed to :func:`kernel_from_algorithm`.
    :returns: the kernel class, or a decorator where ``kernel`` is None.
    :raises ValueError: for a name that is taken, or needs that are none of the four.
    :raises TypeError: for anything that is neither a kernel nor an algorithm.

    >>> from blackjax.mcmc import mala
    >>> from numpyro_score.infer import get_kernel, register_kernel
    >>> Mine = register_kernel("my_mala", mala, description="MALA once more")
    >>> get_kernel("my_mala") is Mine
    True
    """

    def register(kernel: Any) -> Any:
        if not (isinstance(kernel, type) and issubclass(kernel, MCMCKernel)):
            kernel = kernel_from_algorithm(name, kernel, **options)
        elif options:
            raise TypeError(
                f"{sorted(options)} are for algorithms, but {name!r} is a kernel class."
            )
        _KERNELS[name] = KernelInfo(kernel, description, tuple(needs), reference)
        return kernel

    if name in _KERNELS:
        raise ValueError(f"A kernel {name!r} is registered already: {_KERNELS[name].kernel}.")
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise ValueError(f"needs must be among {NEEDS}, got {unknown}.")
    return register if kernel is None else register(kernel)


def get_kernel(name: str) -> type[MCMCKernel]:
    """Return the class of a registered kernel.

    :raises KeyError: for an unknown name; lists the near ones.

    >>> from numpyro_score.infer import get_kernel
    >>> get_kernel("mala").__name__
    'MALA'
    >>> get_kernel("barkers")
    Traceback (most recent call last):
        ...
    KeyError: "No kernel is registered as 'barkers'. Did you mean 'barker'? ..."
    """
    if name in _KERNELS:
        return _KERNELS[name].kernel
    near = difflib.get_close_matches(name.lower(), _KERNELS)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise KeyError(f"No kernel is registered as {name!r}.{hint} There are {sorted(_KERNELS)}.")


def available_kernels() -> KernelTable:
    """Return all registered kernels by name, as a dictionary that prints as a table.

    >>> from numpyro_score.infer import available_kernels
    >>> available_kernels()["mala"].needs
    ('gradient', 'tuning')
    """
    return KernelTable(sorted(_KERNELS.items()))
