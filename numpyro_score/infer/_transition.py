"""What a kernel tells the adapter of one step."""

from __future__ import annotations

from typing import NamedTuple

from numpyro_score._typing import Array


class Transition(NamedTuple):
    """What a step did, in whitened coordinates.

    - **step** - displacement v, zero where the chain stayed.
    - **logdensity**, **score** - log density and its gradient where the chain is now.
    - **accept_prob** - of the Metropolis test, made or not; it drives the step size.
    - **moved** - whether the proposal was taken.
    - **diverging** - whether the proposal was hopeless, or not finite.
    - **statistic** - what the state reports of this step.
    """

    step: Array
    logdensity: Array
    score: Array
    accept_prob: Array
    moved: Array
    diverging: Array
    statistic: Array
