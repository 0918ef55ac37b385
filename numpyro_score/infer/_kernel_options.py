"""What a kernel was made with, in JSON, so that one process can compare it with another's."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import jax
import numpy as np
from numpyro.infer.mcmc import MCMCKernel

from numpyro_score._array_file import digest_arrays
from numpyro_score.infer._fresh_kernel import fresh
from numpyro_score.infer.adapter import BlackJAXKernel


def kernel_options(kernel: MCMCKernel) -> dict[str, Any]:
    """Return the class of a kernel and its options, the same before and after ``init``.

    Of a function there is only the name: what a model says shows in where its chains start.
    """
    options = {name.lstrip("_"): value for name, value in vars(fresh(kernel)).items()}
    if isinstance(kernel, BlackJAXKernel):
        options.pop("num_warmup")  # of the last run
        options["parameters"] = getattr(kernel, "parameters", None)
    else:
        # Those of others keep what `init` made among their options.
        named = inspect.signature(type(kernel).__init__).parameters
        options = {k: v for k, v in options.items() if k in named or _holds_kernels(v)}
    return {"class": _name(type(kernel))} | {k: _plain(v) for k, v in options.items()}


def _holds_kernels(value: Any) -> bool:
    is_kernel = lambda x: isinstance(x, MCMCKernel)  # noqa: E731
    return any(map(is_kernel, jax.tree.leaves(value, is_leaf=is_kernel)))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, MCMCKernel):
        return kernel_options(value)
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return digest_arrays(value)[:16]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": _name(type(value)), **fields}
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    return _name(type(value))


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
