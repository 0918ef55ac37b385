"""What the draws of chains say of themselves: finite, moving, mixed, and enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from numpyro_score.diagnostics.findings import Finding, cannot_tell, judge

# Vehtari et al. (2021), Rank-normalization, folding, and localization, Bayesian Analysis 16: R-hat
# below 1.01, and an ESS of 50 for each half of a chain.
_R_HAT = 1.01
_ESS = 100
# Where so few draws make R-hat larger by chance.
_R_HAT_LIMIT = 1.05
_LEVEL = 1e-3
# MALA moves in 574 of 1,000 steps, a random walk in 234.
_MOVED = 0.02
_MIN_DRAWS = 8


class Mixing(NamedTuple):
    """Rows of the table, and the least bulk ESS of all components; NaN if unknown."""

    rows: list[Finding]
    ess: float


def mixing(draws: Mapping[str, np.ndarray], are_chains: bool) -> Mixing:
    """Return what draws ``(chains, draws, *site)`` by site say.

    :param are_chains: whether a draw follows from the one before it, as particles do not.
    """
    flat = {name: x.reshape(*x.shape[:2], -1) for name, x in draws.items() if x.size}
    values = np.concatenate([x.astype(np.float64) for x in flat.values()], -1)
    num_chains, num_draws, _ = values.shape
    rows = [_finite(values)]
    if are_chains:
        rows.append(_moved(values))
    names = ("R-hat", "ESS (bulk)", "ESS (tail)")
    if num_draws < _MIN_DRAWS:
        why = f"{num_draws} draws of each chain are too few"
        return Mixing(rows + [cannot_tell(name, why) for name in names], np.nan)
    if not np.isfinite(values).all():
        why = "draws are not finite"
        return Mixing(rows + [cannot_tell(name, why) for name in names], np.nan)
    labels = [f"{name}[{i}]" for name, x in flat.items() for i in range(x.shape[-1])]
    varied = values.std((0, 1)) > 0
    if not varied.any():
        why = "no draw differs from another"
        return Mixing(rows + [cannot_tell(name, why) for name in names], np.nan)
    labels = [label for label, varies in zip(labels, varied, strict=True) if varies]
    r_hat, bulk, tail, alone = _summaries(values[..., varied])
    rows.append(_r_hat(r_hat, alone, labels, num_chains))
    if not are_chains:
        return Mixing(rows, float(bulk.min()))
    for name, ess in (("ESS (bulk)", bulk), ("ESS (tail)", tail)):
        worst = int(np.argmin(ess))
        advice = (
            f"least for {labels[worst]}: draw more, or let the kernel move further (a dense "
            "metric, HMC, NUTS)."
        )
        rows.append(judge(name, ess[worst], (_ESS * num_chains, np.inf), advice))
    return Mixing(rows, float(bulk.min()))


def _finite(values: np.ndarray) -> Finding:
    lost = (~np.isfinite(values).all(-1)).sum()
    advice = "draws are NaN or infinite: look at the density where the chain was last finite."
    return judge("draws that are not finite", float(lost), (0, 0), advice)


def _moved(values: np.ndarray) -> Finding:
    name = "share of steps that moved"
    if values.shape[1] < 2:
        return cannot_tell(name, "there is one draw")
    moved = (np.diff(values, axis=1) != 0).any(-1).mean(1)
    stuck = np.flatnonzero(moved < _MOVED)
    advice = (
        f"chain {', '.join(map(str, stuck))} did not move (counting from 0): its draws say "
        "nothing. Start it elsewhere, or take a smaller step size."
    )
    return judge(name, moved.min(), (_MOVED, np.inf), advice)


def _summaries(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return R-hat, bulk and tail ESS of each component, by ArviZ.

    The last is the bulk ESS but for what chains differ in their means.
    """
    import arviz as az

    data = halves = az.dict_to_dataset({"x": values})
    if len(values) == 1:  # of one chain ArviZ has no R-hat: its halves are two
        half = values.shape[1] // 2
        halves = az.dict_to_dataset({"x": values[0, : 2 * half].reshape(2, half, -1)})
    centred = az.dict_to_dataset({"x": values - values.mean(1, keepdims=True)})
    found: list[Any] = [
        az.rhat(halves),
        az.ess(data, method="bulk"),
        az.ess(data, method="tail"),
        az.ess(centred, method="bulk"),
    ]
    return tuple(np.asarray(one["x"].values, float) for one in found)


def _r_hat(r_hat: np.ndarray, ess: np.ndarray, labels: list[str], num_chains: int) -> Finding:
    # Of k halves of chains that agree, with e effective draws each, R-hat is about
    # 1 + χ²_{k-1} / (2 e (k - 1)); the largest of all components is looked at, folded or not.
    k = 2 * max(num_chains, 2)
    quantile = stats.chi2.ppf(1 - _LEVEL / (2 * len(r_hat)), k - 1) / (k - 1)
    by_chance = 1 + quantile * k / (2 * ess)
    limits = np.clip(np.nan_to_num(by_chance, nan=_R_HAT), _R_HAT, _R_HAT_LIMIT)
    # A chain that stands still has no variance of its own.
    r_hat = np.where(np.isnan(r_hat), np.inf, r_hat)
    worst = int(np.argmax(r_hat / limits))
    advice = (
        f"largest for {labels[worst]}: chains are in different places. Run longer; where there "
        "are several modes, ReplicaExchange or TemperedSMC."
    )
    return judge("R-hat", r_hat[worst], (-np.inf, float(limits[worst])), advice)
