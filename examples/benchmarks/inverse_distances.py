"""How far draws are from exact ones."""

from __future__ import annotations

import numpy as np
from inverse_instances import Mixture

_NUM_SLICES, _PUBLISHED_SLICES, _NUM_REFERENCES = 200, 100, 5


def _slices(d: int, num: int) -> np.ndarray:
    along = np.random.default_rng(0).normal(size=(d, num))
    return along / np.linalg.norm(along, axis=0)


def sliced_wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over directions of the Wasserstein-1 distance, for equally many rows."""
    along = _slices(a.shape[1], _NUM_SLICES)
    return float(np.abs(np.sort(a @ along, axis=0) - np.sort(b @ along, axis=0)).mean())


def max_sliced_wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest Wasserstein-2 distance over 100 directions: the published figure."""
    along = _slices(a.shape[1], _PUBLISHED_SLICES)
    squares = (np.sort(a @ along, axis=0) - np.sort(b @ along, axis=0)) ** 2
    return float(np.sqrt(squares.mean(0).max()))


def distances(draws: np.ndarray, exact: Mixture) -> dict[str, float]:
    """Return the distances of draws ``(n, d)`` to exact ones, means over five sets of these.

    A distance, that of the published kind, the total variation between the weights of modes, and
    as ``floor`` the first between two sets of n exact draws.
    """
    others = [exact.sample(1_000 + seed, len(draws)) for seed in range(2 * _NUM_REFERENCES)]
    near, far = others[:_NUM_REFERENCES], others[_NUM_REFERENCES:]
    pairs = list(zip(near, far, strict=True))
    floor = float(np.mean([sliced_wasserstein(a, b) for a, b in pairs]))
    distance = float(np.mean([sliced_wasserstein(draws, other) for other in near]))
    shares = np.exp(_normalized(exact.log_density(draws))).mean(0)
    return {
        "distance": distance,
        "floor": floor,
        "ratio": distance / floor,
        "max_sliced": float(np.mean([max_sliced_wasserstein(draws, other) for other in near])),
        "max_sliced_floor": float(np.mean([max_sliced_wasserstein(a, b) for a, b in pairs])),
        "weights": float(0.5 * np.abs(shares - exact.weights).sum()),
    }


def _normalized(log_density: np.ndarray) -> np.ndarray:
    return log_density - np.logaddexp.reduce(log_density, axis=1, keepdims=True)
