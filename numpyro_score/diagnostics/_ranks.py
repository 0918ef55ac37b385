"""Ranks of a truth among draws, and whether they are uniform."""

from __future__ import annotations

import numpy as np
from scipy import stats

_MAX_BINS = 20
_MIN_COUNT = 10.0
_NUM_ERRORS = 2.5


def rank_of_truth(
    draws: np.ndarray, truth: np.ndarray, axis: int, random: np.random.Generator
) -> np.ndarray:
    """Return how many draws are below the truth, from 0 to their number, for each component.

    Draws that equal the truth are as good as in random order: as many of them count as below.
    """
    truth = np.expand_dims(truth, axis)
    ranks, ties = np.sum(draws < truth, axis), np.sum(draws == truth, axis)
    return ranks + random.integers(0, ties + 1) if ties.any() else ranks


def as_uniform(ranks: np.ndarray, num_draws: int, random: np.random.Generator) -> np.ndarray:
    """Return ranks as numbers between 0 and 1, spread over the width of their step at random."""
    return (ranks + random.uniform(size=ranks.shape)) / (num_draws + 1)


def uniformity_p_values(
    ranks: np.ndarray, num_draws: int, random: np.random.Generator
) -> np.ndarray:
    """Return a p-value for each component of ranks ``(replications, *event_shape)``.

    Twice the smaller one of a chi-square test of counts in at most 20 bins, which sees peaks and
    tails, and of a Kolmogorov-Smirnov test, which sees shifts.
    """
    columns = ranks.reshape(len(ranks), -1)
    uniform = as_uniform(columns, num_draws, random)
    p_values = []
    for rank, value in zip(columns.T, uniform.T, strict=True):
        counts, expected = binned(rank, num_draws)
        chi_square = stats.chisquare(counts, expected).pvalue
        smaller = min(chi_square, stats.kstest(value, "uniform").pvalue)
        p_values.append(min(1.0, 2 * smaller))
    return np.array(p_values).reshape(ranks.shape[1:])


def binned(ranks: np.ndarray, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return counts of ranks in bins of about one width, and what is expected of uniform ones."""
    num_bins = int(np.clip(len(ranks) / _MIN_COUNT, 2, min(_MAX_BINS, num_draws + 1)))
    edges = np.arange(num_bins + 1) * (num_draws + 1) // num_bins
    counts = np.histogram(ranks, edges - 0.5)[0]
    return counts, np.diff(edges) * len(ranks) / (num_draws + 1)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values for all tests together; Holm, Scandinavian Journal of Statistics (1979)."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def shape_in_words(ranks: np.ndarray, num_draws: int) -> str:
    """Return what ranks ``(replications,)`` that are not uniform say of the draws."""
    uniform = (ranks + 0.5) / (num_draws + 1)
    num = len(ranks)
    shift = (uniform.mean() - 0.5) / np.sqrt(1 / (12 * num))
    squares = (uniform - 0.5) ** 2
    spread = (squares.mean() - 1 / 12) / np.sqrt(1 / (180 * num))
    if max(abs(shift), abs(spread)) < _NUM_ERRORS:
        return "neither shift nor width tells why: look at the figure"
    if abs(shift) > abs(spread):
        return "draws are too small" if shift > 0 else "draws are too large"
    return "draws are too narrow" if spread > 0 else "draws are too wide"


def order_interval(prob: float, num_draws: int) -> tuple[int, float]:
    """Return k, and the exact probability of the interval from the k-th draw to the k-th last."""
    outside = max(1, round((1 - prob) / 2 * (num_draws + 1)))
    return outside, 1 - 2 * outside / (num_draws + 1)


def central_coverage(ranks: np.ndarray, num_draws: int, prob: float) -> tuple[float, float, float]:
    """Return how often central intervals hold the truth, the standard error, and what is exact.

    The interval between the k-th smallest and the k-th largest draw holds the truth with the
    probability 1 - 2k / (L + 1) where all L + 1 are exchangeable. Components of one replication
    depend on each other, which the spread between replications tells.
    """
    outside, exact = order_interval(prob, num_draws)
    inside = (ranks >= outside) & (ranks <= num_draws - outside)
    inside = inside.reshape(len(inside), -1)
    found = float(inside.mean())
    variance = max(found * (1 - found), exact * (1 - exact)) / inside.size
    if len(inside) > 1:
        variance = max(variance, inside.mean(1).var(ddof=1) / len(inside))
    return found, float(np.sqrt(variance)), exact
