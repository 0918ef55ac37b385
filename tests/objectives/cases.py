"""What every contract test of the objectives runs over: a new objective is one line here."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_score import objectives
from numpyro_score.networks import DensityNetwork, NormalizedEnergy, as_network
from numpyro_score.sde import VE, VP


def standard_normal(shape):
    return dist.Normal(jnp.zeros(shape), 1.0).to_event(len(shape))


class Claimed(DensityNetwork):
    """An energy that says it is normalized, whether or not it is."""

    energy: eqx.Module

    def __call__(self, x, *condition):
        return self.energy(x, *condition)

    def sample(self, rng_key, sample_shape=(), condition=None):
        raise NotImplementedError


class Case(NamedTuple):
    """An objective for events of a shape.

    ``scores``: whether it takes scores as well as energies. ``levels``: whether its network is
    asked for a noise level. ``constant``: whether its energy needs one. ``density``: whether it
    takes normalized densities only. ``random``: whether the key matters.
    """

    make: Callable[[tuple[int, ...]], Any]
    scores: bool = True
    levels: bool = False
    constant: bool = False
    density: bool = False
    random: bool = True

    def network(self, network):
        """Return a network that ignores the level, if it is told one, or has a constant."""
        if self.density:
            return Claimed(as_network(network))
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
    "esm": Case(lambda shape: objectives.ExplicitScoreMatching(), random=False),
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
    "ml": Case(
        lambda shape: objectives.MaximumLikelihood(), scores=False, density=True, random=False
    ),
    "ml blurred": Case(lambda shape: objectives.MaximumLikelihood(0.3), scores=False, density=True),
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
