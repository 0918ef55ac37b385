"""What a run of replica exchange must tell of itself, unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_score.infer._levels import Level

if TYPE_CHECKING:
    from numpyro_score.infer._replica_state import ReplicaExchangeState

# A tuned kernel has hardly a hopeless move; where a score is NaN they come by the hundred.
_HOPELESS = 0.02
# In fewer steps than that nobody expects a round trip.
_LEAST_STEPS = 100


def remarks(state: ReplicaExchangeState) -> list[str]:
    """Return a sentence for each thing that is wrong with a run that ended in ``state``.

    Chains are the leading axis of its fields, or there is none for a single one.
    """
    trips = np.atleast_1d(np.asarray(state.journeys.round_trips))
    swaps = _by_chain(state.num_swaps)
    # Even and odd pairs take turns.
    num_steps = int(swaps[0, :2].sum()) if swaps.shape[1] > 1 else 2 * int(swaps[0, 0])
    levels = Level(*(_by_chain(values)[0] for values in state.levels))
    said = [
        _undefined(_by_chain(state.num_undefined).sum(0), swaps.sum(0), levels),
        _hopeless(_by_chain(state.num_hopeless).sum(0), num_steps * len(trips), levels),
        _no_round_trips(trips, num_steps, _by_chain(state.mean_swap_accept_prob), levels),
    ]
    return [sentence for sentence in said if sentence is not None]


def _by_chain(values: Any) -> np.ndarray:
    return np.atleast_2d(np.asarray(values))


def _name(levels: Level, k: int) -> str:
    power = levels.inverse_temperature[k]
    tempered = "" if power == 1 else f", power {power:.3g} of the likelihood"
    return f"level {k} (noise {levels.noise_scale[k]:.3g}{tempered})"


def _undefined(undefined: np.ndarray, swaps: np.ndarray, levels: Level) -> str | None:
    if not undefined.any():
        return None
    shares = undefined / np.maximum(swaps, 1)
    worst = int(shares.argmax())
    return (
        f"{undefined.sum()} of {swaps.sum()} swaps were refused because the ratio of densities "
        f"was NaN, most ({shares[worst]:.1%}) between {_name(levels, worst)} and "
        f"{_name(levels, worst + 1)}: the score or energy is no number there, and the draws are "
        "of what is left. Look at the network at these noise levels, far from the data."
    )


def _hopeless(hopeless: np.ndarray, num_steps: int, levels: Level) -> str | None:
    shares = hopeless / max(num_steps, 1)
    worst = int(shares.argmax())
    if num_steps < _LEAST_STEPS or shares[worst] < _HOPELESS:
        return None
    return (
        f"{shares[worst]:.1%} of the moves at {_name(levels, worst)} were hopeless: of acceptance "
        "0, or to where the score or energy is NaN, far from the data perhaps. Replicas stay out "
        "of such places, whatever their weight. A longer warm-up helps where only the step size "
        "is too large."
    )


def _no_round_trips(
    trips: np.ndarray, num_steps: int, accept_prob: np.ndarray, levels: Level
) -> str | None:
    without = int((trips == 0).sum())
    if num_steps < _LEAST_STEPS or 2 * without <= len(trips):
        return None
    rates = accept_prob.mean(0)
    worst = int(rates.argmin())
    return (
        f"{without} of {len(trips)} chains had no round trip between the posterior and the top of "
        f"the ladder in {num_steps} steps, so that the weights of modes are uncertain whatever "
        f"R-hat says. Swaps are accepted least ({rates[worst]:.1%}) between "
        f"{_name(levels, worst)} and {_name(levels, worst + 1)}. Run longer, or with more replicas "
        "or moves."
    )
