"""Matrix products with all digits of float32.

A GPU with tensor cores, and a TPU, round the factors of a float32 product to ten bits or fewer
unless told otherwise. That is enough for the layers of a network; a covariance of condition number
1,000, a density to the hundredth of a nat and a distance between two near points are lost in it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

_P = ParamSpec("_P")
_R = TypeVar("_R")


def exact_products(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function so that its products, and their derivatives, are exact to float32.

    Not for one that calls a network, whose products are its user's choice.
    """

    @wraps(function)
    def exact(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return exact
