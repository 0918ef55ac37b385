"""How many draws a chunk holds."""

from __future__ import annotations

import jax

from numpyro_score._typing import PyTree

# A GPU waits for the host between two chunks for as long as some ten steps take.
_BYTES, _BYTES_ON_ACCELERATOR = 2**23, 2**26
_MAX_ROWS = 2**16


def rows_that_fit(*rows: PyTree) -> int:
    """Return a power of two that does not depend on the number of draws that are asked for.

    :param rows: shapes and dtypes of one row, at each stage of its way; the largest counts.
    """
    size = max(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(row)) for row in rows)
    room = _BYTES if jax.default_backend() == "cpu" else _BYTES_ON_ACCELERATOR
    fitting = max(1, room // max(size, 1))
    return min(_MAX_ROWS, max(16, 2 ** (fitting.bit_length() - 1)))
