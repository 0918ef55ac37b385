"""Who takes part: one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bare import bare, floor, loop
from contestants import LANGEVIN_ACCEPTANCE, Contestant, choose_size, in_mcmc
from numpyro import infer as theirs
from targets import Target

from numpyro_score import infer as ours

BARE = "BlackJAX mala, bare scan"
BARE_DIAGONAL = "BlackJAX mala, diag metric"
OURS = "MALA"
OURS_DENSE = "MALA dense"
HMC_ONE = "HMC(1)"
NUTS = "NUTS"


class Entrant(NamedTuple):
    """A kernel, and how it is to be run.

    - **target_accept_prob** - None where there is no Metropolis test.
    - **many_gradients** - a step is a trajectory, so that fewer of them do.
    - **several_chains** - whether one chain is not enough.
    """

    make: Callable[[Callable[..., Any]], Any]
    target_accept_prob: float | None = LANGEVIN_ACCEPTANCE
    many_gradients: bool = False
    several_chains: bool = False


def _one_step_of_hmc(model: Callable[..., Any]) -> Any:
    # The default target of 0.8 is for long trajectories; one step is MALA and gets MALA's.
    return theirs.HMC(
        model, num_steps=1, trajectory_length=None, target_accept_prob=LANGEVIN_ACCEPTANCE
    )


_DENSE = {"dense_mass": True}
_POOLED = {"dense_mass": True, "adaptation": "pooled"}

OF_NUMPYRO = {
    HMC_ONE: Entrant(_one_step_of_hmc),
    "BarkerMH": Entrant(theirs.BarkerMH, 0.4),
    NUTS: Entrant(theirs.NUTS, 0.8, many_gradients=True),
}
OF_OURS = {
    OURS: Entrant(ours.MALA),
    OURS_DENSE: Entrant(lambda m: ours.MALA(m, **_DENSE)),
    "MALA pooled": Entrant(lambda m: ours.MALA(m, **_POOLED), several_chains=True),
    "Barker dense": Entrant(lambda m: ours.Barker(m, **_DENSE), 0.4),
    "GHMC dense": Entrant(lambda m: ours.GHMC(m, **_DENSE), 0.9),
    "GHMC pooled": Entrant(lambda m: ours.GHMC(m, **_POOLED), 0.9, several_chains=True),
    "MCLMC": Entrant(ours.MCLMC, None),
    "AdjustedMCLMC": Entrant(ours.AdjustedMCLMC, 0.9),
    "HMC pooled": Entrant(
        lambda m: ours.HMC(m, **_POOLED), 0.8, many_gradients=True, several_chains=True
    ),
    "NUTS dense (BlackJAX)": Entrant(lambda m: ours.NUTS(m, **_DENSE), 0.8, many_gradients=True),
}
ENTRANTS = OF_OURS | OF_NUMPYRO
REFERENCES = 4


def build(
    target: Target, chains: int, warmup: int, names: list[str], progress: Callable[[str], None]
) -> list[Contestant]:
    """Return the references and the named entrants, compiled and warmed up."""
    contestants = []
    for name in [OURS, *(n for n in names if n != OURS)]:
        entrant = ENTRANTS[name]
        if entrant.several_chains and chains == 1:
            continue
        progress(f"building {name}")
        # A step of NUTS is a tree of many gradients, and its warm-up is over in fewer steps.
        size = choose_size(chains, warmup // 10 if entrant.many_gradients else warmup)
        kernel = entrant.make(target.model)
        contestants.append(in_mcmc(name, kernel, target, size, entrant.target_accept_prob))
    mala = contestants[0]
    progress("building the references")
    return [
        floor(target, mala),
        bare(BARE, target, mala, whiten=False),
        bare(BARE_DIAGONAL, target, mala, whiten=True),
        loop(target, mala),
        *contestants,
    ]
