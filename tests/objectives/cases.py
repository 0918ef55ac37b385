"""What every contract test of the objectives runs over: a new objective is one line here."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_score import objectives
from numpyro_score.networks import NormalizedEnergy
from numpyro_score.sde import VE, VP


def standard_normal(shape):
    return dist.Normal(jnp.zeros(shape), 1.0).to_event(len(shape))


class Case(NamedTuple):
    """An objective for events of a shape.

    ``scores``: whether it takes scores as well as energies. ``levels``: whether its network is
    asked for a noise level. ``constant``: whether its energy needs one.
    """

    make: Callable[[tuple[int, ...]], Any]
    scores: bool = True
    levels: bool = False
    constant: bool = False

    def network(self, network):
        """Return a network that ignores the level, if it is told one, or has a constant."""
        if self.constant:
            return NormalizedEnergy(network)
        return (lambda x, level, *c: network(x, *c)) if self.levels else network


CASES = {
    "dsm": Case(lambda shape: objectives.DenoisingScoreMatching(0.3)),
    "dsm with control variate": Case(
        lambda shape: objectives.DenoisingScoreMatching(0.3, control_variate=True)
    ),
    "ladder": Case(lambda shape: objectives.LadderScoreMatching((0.1, 0.3, 1.0)), levels=True),
    "diffusion": Case(lambda shape: objectives.DiffusionScoreMatching(VE(0.1, 2.0)), levels=True),
    "diffusion likelihood": Case(
        lambda shape: objectives.DiffusionScoreMatching(VP(), "likelihood"), levels=True
    ),
    "esm": Case(lambda shape: objectives.ExplicitScoreMatching()),
    "esm rademacher": Case(lambda shape: objectives.ExplicitScoreMatching(2)),
    "esm normal": Case(lambda shape: objectives.ExplicitScoreMatching(2, "normal")),
    "esm sphere": Case(lambda shape: objectives.ExplicitScoreMatching(2, "sphere")),
    "ssm": Case(lambda shape: objectives.SlicedScoreMatching(2, variance_reduced=False)),
    "ssm-vr": Case(lambda shape: objectives.SlicedScoreMatching(2)),
    "nce": Case(
        lambda shape: objectives.NoiseContrastiveEstimation(standard_normal(shape), 3),
        scores=False,
        constant=True,
    ),
    "nce ranking": Case(
        lambda shape: objectives.NoiseContrastiveEstimation(standard_normal(shape), 3, True),
        scores=False,
    ),
    "cd": Case(lambda shape: objectives.ContrastiveDivergence(0.01, 2), scores=False),
    "cd untested": Case(
        lambda shape: objectives.ContrastiveDivergence(0.01, 2, metropolis=False), scores=False
    ),
    "short run": Case(
        lambda shape: objectives.ContrastiveDivergence(
            0.01, 2, start=standard_normal(shape), magnitude=0.1
        ),
        scores=False,
    ),
    "persistent cd": Case(
        lambda shape: objectives.PersistentContrastiveDivergence(0.01, 2, 8), scores=False
    ),
    "energy discrepancy": Case(lambda shape: objectives.EnergyDiscrepancy(0.5, 4), scores=False),
}
