"""Who takes part: one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from bare import bare, floor, narrow_step_size
from contestants import (
    LANGEVIN_ACCEPTANCE,
    Contestant,
    choose_size,
    in_numpyro_mcmc,
    in_our_mcmc,
)
from numpyro import infer as theirs
from targets import Target

from numpyro_score import infer as ours

OURS = "MALA"
OURS_DENSE = "MALA dense"
HMC_ONE = "HMC(1)"
NUTS = "NUTS"
TFP_MALA = "MALA of TFP"


class Entrant(NamedTuple):
    """A kernel, and how it is to be run.

    - **target_accept_prob** - None where there is no Metropolis test.
    - **many_gradients** - a step is a trajectory, so that fewer of them do.
    - **pooled** - whether it tunes all chains together, and cannot run one.
    - **one_key** - whether it takes one chain only, so that NumPyro maps it over several.
    - **impl** - JAX's implementation of its random numbers.
    """

    make: Callable[[Callable[..., Any]], Any]
    target_accept_prob: float | None = LANGEVIN_ACCEPTANCE
    many_gradients: bool = False
    pooled: bool = False
    one_key: bool = False
    impl: str = "threefry2x32"


def _one_step_of_hmc(model: Callable[..., Any]) -> Any:
    # The default target of 0.8 is for long trajectories; one step is MALA and gets MALA's.
    return theirs.HMC(
        model, num_steps=1, trajectory_length=None, target_accept_prob=LANGEVIN_ACCEPTANCE
    )


_DENSE = {"dense_mass": True}
_POOLED = {"dense_mass": True, "adaptation": "pooled"}
# Where a dense metric has more numbers than draws have told.
_POOLED_LOW_RANK = {"max_rank": 10, "adaptation": "pooled"}

OF_NUMPYRO = {
    NUTS: Entrant(theirs.NUTS, 0.8, many_gradients=True),
    HMC_ONE: Entrant(_one_step_of_hmc),
    "BarkerMH": Entrant(theirs.BarkerMH, 0.4, one_key=True),
    "MALA in NumPyro's MCMC": Entrant(ours.MALA),
}
OF_OURS = {
    OURS: Entrant(ours.MALA),
    "MALA, rbg keys": Entrant(ours.MALA, impl="rbg"),
    "MALA, unsafe_rbg keys": Entrant(ours.MALA, impl="unsafe_rbg"),
    "MALA rank 10": Entrant(lambda m: ours.MALA(m, max_rank=10)),
    OURS_DENSE: Entrant(lambda m: ours.MALA(m, **_DENSE)),
    "MALA pooled": Entrant(lambda m: ours.MALA(m, **_POOLED), pooled=True),
    "ULA": Entrant(ours.ULA, None),
    "Barker dense": Entrant(lambda m: ours.Barker(m, **_DENSE), 0.4),
    "GHMC dense": Entrant(lambda m: ours.GHMC(m, **_DENSE), 0.9),
    "GHMC pooled": Entrant(lambda m: ours.GHMC(m, **_POOLED), 0.9, pooled=True),
    "MCLMC": Entrant(ours.MCLMC, None),
    "AdjustedMCLMC": Entrant(ours.AdjustedMCLMC, 0.9),
    "HMC dense": Entrant(lambda m: ours.HMC(m, **_DENSE), 0.8, many_gradients=True),
    "HMC pooled": Entrant(lambda m: ours.HMC(m, **_POOLED), 0.8, many_gradients=True, pooled=True),
    "HMC rank 10 pooled": Entrant(
        lambda m: ours.HMC(m, **_POOLED_LOW_RANK), 0.8, many_gradients=True, pooled=True
    ),
    "ChEES dense": Entrant(
        lambda m: ours.ChEES(m, **_DENSE), 0.8, many_gradients=True, pooled=True
    ),
    "ChEES rank 10": Entrant(
        lambda m: ours.ChEES(m, max_rank=10), 0.8, many_gradients=True, pooled=True
    ),
    "NUTS of BlackJAX": Entrant(ours.NUTS, 0.8, many_gradients=True),
}
ENTRANTS = OF_OURS | OF_NUMPYRO


def build(
    target: Target,
    chains: int,
    warmup: int,
    seconds: float,
    names: list[str],
    with_bare: bool,
    progress: Callable[[str], None],
) -> list[Contestant]:
    """Return the named entrants, compiled and warmed up, and what they are held against.

    :param warmup: number of steps, a tenth of it where a step is a trajectory.
    :param seconds: how long a run of ours is to take.
    :param with_bare: whether each of ours gets a bare loop beside it.
    """
    contestants = []
    for name in [OURS, *(n for n in names if n != OURS)]:
        entrant = ENTRANTS[name]
        if entrant.pooled and chains == 1:
            continue
        progress(f"building {name}")
        # A trajectory is worth many steps, and its warm-up is over in fewer.
        size = choose_size(chains, warmup // 10 if entrant.many_gradients else warmup)
        kernel, key = entrant.make(target.model), jax.random.key(1, impl=entrant.impl)
        what = (name, kernel, target, size, entrant.target_accept_prob, key)
        if name in OF_OURS:
            contestant = in_our_mcmc(*what, seconds)
        else:
            contestant = in_numpyro_mcmc(*what, one_key=entrant.one_key)
        contestants.append(contestant)
        if with_bare and name in OF_OURS and entrant.impl == "threefry2x32":
            contestants.append(bare(target, contestant, type(kernel).__name__, entrant.pooled))
            contestant.bare = contestants[-1].name
    mala = contestants[0]
    tfp = _tfp_mala(target, mala)
    return [floor(target, mala), *contestants, *([] if tfp is None else [tfp])]


def _tfp_mala(target: Target, mala: Contestant) -> Contestant | None:
    """Return TFP's MALA, where TFP is installed.

    It has neither a metric nor warm-up, so it gets from ours the step that fits the narrowest
    direction; its step size is twice ours.
    """
    try:
        from numpyro.contrib.tfp import mcmc as tfp
    except ImportError:
        return None
    kernel = tfp.MetropolisAdjustedLangevinAlgorithm(
        target.model, step_size=2 * float(narrow_step_size(mala))
    )
    return in_numpyro_mcmc(
        TFP_MALA, kernel, target, mala.size, None, jax.random.key(1), one_key=True
    )
