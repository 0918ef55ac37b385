"""The rule by which a score is integrated along a step."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache
def gauss_lobatto(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1] with both ends among the nodes, exact to ``2 num_nodes - 3``.

    Two nodes are the trapezoid rule, three Simpson's. The rule is its own mirror image, so that
    an integral walked backwards changes its sign and nothing else. Abramowitz & Stegun (1964),
    25.4.32.

    >>> nodes, weights = gauss_lobatto(3)
    >>> nodes.tolist(), (6 * weights).round(12).tolist()
    ([0.0, 0.5, 1.0], [1.0, 4.0, 1.0])
    """
    legendre = np.polynomial.legendre
    last = np.zeros(num_nodes)
    last[-1] = 1.0
    inner = np.sort(legendre.legroots(legendre.legder(last)).real)
    left = np.concatenate([[-1.0], (inner - inner[::-1]) / 2, [1.0]])
    weights = 1 / (num_nodes * (num_nodes - 1) * legendre.legval(left, last) ** 2)
    return (1 + left) / 2, (weights + weights[::-1]) / 2
