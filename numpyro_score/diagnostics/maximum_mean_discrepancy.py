"""The maximum mean discrepancy between two sets of draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int, check_positive
from numpyro_score._precision import exact_products
from numpyro_score._typing import Array, PyTree
from numpyro_score.diagnostics._lengthscale import median_distance, some_rows
from numpyro_score.diagnostics._two_samples import two_samples
from numpyro_score.diagnostics.result import Diagnostic

Kernel = Literal["rbf", "imq"]

_MEDIAN_ROWS = 500
_BLOCK_BYTES = 2**25
_NUM_GROUPS = 25
_MIN_DRAWS = 2 * _NUM_GROUPS


@dataclass(frozen=True, repr=False)
class MaximumMeanDiscrepancy(Diagnostic):
    """Result of :func:`maximum_mean_discrepancy`.

    - **value** - its square, without bias: below 0 about every other time where nothing differs.
    - **error** - its standard error.
    - **lengthscale** - of the kernel, in units of the draws.
    - **p_value** - of the permutation test; NaN where none was made.
    """

    lengthscale: float
    p_value: float

    def reading(self) -> str:
        """Return whether the two sets differ."""
        scale = f"at the lengthscale {self.lengthscale:.2g}"
        if np.isfinite(self.p_value):
            tell = "the sets differ" if self.p_value < 0.01 else "no difference is seen"
            return f"MMD², p = {self.p_value:.2g}: {tell} {scale}"
        if self.value > 3 * self.error:
            return f"MMD², {self.value / self.error:.0f} errors above 0: the sets differ {scale}"
        return f"MMD², within three errors of 0: no difference is seen {scale}"


def maximum_mean_discrepancy(
    draws: Array,
    reference: Array,
    *,
    kernel: Kernel = "rbf",
    lengthscale: float | None = None,
    rng_key: Array | None = None,
    num_permutations: int = 500,
) -> MaximumMeanDiscrepancy:
    r"""Squared distance between the mean embeddings of two sets of draws, without bias.

    .. math:: \mathrm{MMD}^2 = \frac{1}{n (n-1)} \sum_{i \ne j} k(x_i, x_j)
        + \frac{1}{m (m-1)} \sum_{i \ne j} k(y_i, y_j) - \frac{2}{n m} \sum_{i, j} k(x_i, y_j)

    with the Gaussian kernel :math:`\exp(-r^2 / 2 \ell^2)` (``"rbf"``) or the inverse multiquadric
    :math:`(1 + r^2 / \ell^2)^{-1/2}` (``"imq"``), which also sees what lies far apart. The
    standard error is a jackknife over groups of neighbouring draws of either set, so that the draws
    of a chain, in their order, may be given; where both densities are the same it is too large
    rather than too small. Blocks of the kernel's matrix are summed as they come.

    Source: A. Gretton et al., A kernel two-sample test, Journal of Machine Learning Research 13
    (2012), equation 3 and section 2.2.

    :param draws: shape ``(n, *event_shape)``, in the order in which they were drawn.
    :param reference: exact draws, or draws known to be good, of shape ``(m, *event_shape)``.
    :param kernel: ``"rbf"`` or ``"imq"``.
    :param lengthscale: ℓ, in units of the draws; by default the median distance of two draws (of
        at most 500 of each set). Give one number to all whose values you compare.
    :param rng_key: a random key for a permutation test, which is exact for draws that are
        independent, and finds differences that are not there for those of a chain: thin them.
    :param num_permutations: permutations of that test.
    :raises ValueError: fewer than 50 draws, events of different shapes, draws that are all one.
    :raises FloatingPointError: a draw is not finite.

    >>> import jax
    >>> from numpyro_score.diagnostics import maximum_mean_discrepancy
    >>> x, y = jax.random.normal(jax.random.key(0), (2, 500, 3))
    >>> maximum_mean_discrepancy(x, y)
    MaximumMeanDiscrepancy(... no difference is seen at the lengthscale 2.2)
    >>> maximum_mean_discrepancy(1.5 * x, y, rng_key=jax.random.key(1)).p_value < 0.01
    True
    """
    if kernel not in get_args(Kernel):
        raise ValueError(f"kernel must be 'rbf' or 'imq', got {kernel!r}.")
    check_int(num_permutations, "num_permutations", 20)
    x, y = two_samples(draws, reference, _MIN_DRAWS)
    if lengthscale is None:
        # As many of each, however many there are.
        lengthscale = median_distance(
            np.concatenate([some_rows(rows, _MEDIAN_ROWS) for rows in (x, y)])
        )
    check_positive(lengthscale, "lengthscale")
    # Distances come from inner products, which lose digits far from the origin.
    z = jnp.asarray((np.concatenate([x, y]) - y.mean(0)) / lengthscale)
    n, m = len(x), len(y)
    groups = np.concatenate([_groups(n), _NUM_GROUPS + _groups(m)])
    columns = jax.nn.one_hot(groups, 2 * _NUM_GROUPS, dtype=z.dtype)
    sums = np.asarray(_group_sums(z, columns, kernel), float).sum(0)
    counts = np.bincount(groups).astype(float)
    value, error = _with_jackknife(sums, counts)
    p_value = np.nan
    if rng_key is not None:
        p_value = _permutation_test(rng_key, z, n, num_permutations, kernel)
    return MaximumMeanDiscrepancy(value, error, float(lengthscale), p_value)


def _groups(num_rows: int) -> np.ndarray:
    return np.arange(num_rows) * _NUM_GROUPS // num_rows


def _discrepancy(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, n: float, m: float) -> np.ndarray:
    """Return MMD² from sums over all pairs; on the diagonal the kernel is 1."""
    return (xx - n) / (n * (n - 1)) + (yy - m) / (m * (m - 1)) - 2 * xy / (n * m)


def _with_jackknife(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return MMD² and its standard error from sums of the kernel over pairs of groups."""

    def without(left_out: int | None) -> float:
        x = np.arange(len(counts)) < _NUM_GROUPS
        y = ~x
        if left_out is not None:
            x[left_out] = y[left_out] = False
        xx, yy, xy = sums[x][:, x].sum(), sums[y][:, y].sum(), sums[x][:, y].sum()
        return float(_discrepancy(xx, yy, xy, counts[x].sum(), counts[y].sum()))

    left = np.array([without(group) for group in range(2 * _NUM_GROUPS)])
    spread = left.reshape(2, _NUM_GROUPS).var(1).sum()
    return without(None), float(np.sqrt((_NUM_GROUPS - 1) * spread))


def _permutation_test(key: Array, z: Array, n: int, num: int, kernel: Kernel) -> float:
    def labels(key: Array) -> Array:
        return jnp.zeros(len(z), z.dtype).at[jax.random.permutation(key, len(z))[:n]].set(1)

    own = (jnp.arange(len(z)) < n).astype(z.dtype)
    columns = [own[None], jax.vmap(labels)(jax.random.split(key, num)), jnp.ones((1, len(z)))]
    sums = _label_sums(z, jnp.concatenate(columns).astype(z.dtype).T, kernel)
    within, of_x = (np.asarray(out, float).sum(0) for out in sums)
    xy = of_x - within
    yy = of_x[-1] - 2 * of_x + within
    values = _discrepancy(within, yy, xy, n, len(z) - n)[:-1]
    return float((1 + np.sum(values[1:] >= values[0])) / (1 + num))


# Sums are over blocks of rows, and are added up in double precision.


@partial(jax.jit, static_argnums=2)
def _group_sums(z: Array, columns: Array, kernel: Kernel) -> Array:
    """Return ``columnsᵀ K columns``, for each block of rows of K."""
    return _over_blocks(lambda own, product: own.T @ product, z, columns, kernel)


@partial(jax.jit, static_argnums=2)
def _label_sums(z: Array, columns: Array, kernel: Kernel) -> tuple[Array, Array]:
    """Return ``cᵀ K c`` and ``cᵀ K 1`` for each column c, the last of which is 1."""

    def sums(own: Array, product: Array) -> tuple[Array, Array]:
        return jnp.sum(own * product, 0), product[:, -1] @ own

    return _over_blocks(sums, z, columns, kernel)


@exact_products
def _over_blocks(fn: Callable[..., PyTree], z: Array, columns: Array, kernel: Kernel) -> PyTree:
    """Map ``fn(columns, K columns)`` over blocks of rows; missing rows have columns of 0.

    Also the sums need all digits: MMD² is a small difference of large ones.
    """
    n = len(z)
    rows = max(1, min(n, _BLOCK_BYTES // (n * z.dtype.itemsize)))
    num_blocks = -(-n // rows)
    square = jnp.sum(z**2, 1)

    def block_sums(block: tuple[Array, Array]) -> PyTree:
        x, own = block
        distance = jnp.maximum(jnp.sum(x**2, 1)[:, None] + square - 2 * x @ z.T, 0)
        matrix = jnp.exp(-distance / 2) if kernel == "rbf" else jax.lax.rsqrt(1 + distance)
        return fn(own, matrix @ columns)

    blocks = (
        jnp.pad(values, ((0, num_blocks * rows - n), (0, 0))).reshape(num_blocks, rows, -1)
        for values in (z, columns)
    )
    return jax.lax.map(block_sums, tuple(blocks))
