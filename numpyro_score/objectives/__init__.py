"""Objectives: what a network minimizes to become a score or an energy, one loss per example."""

from numpyro_score.objectives.contrastive_divergence import ContrastiveDivergence
from numpyro_score.objectives.denoising import DenoisingScoreMatching
from numpyro_score.objectives.diffusion import DiffusionScoreMatching
from numpyro_score.objectives.energy_discrepancy import EnergyDiscrepancy
from numpyro_score.objectives.explicit import ExplicitScoreMatching
from numpyro_score.objectives.ladder import LadderScoreMatching
from numpyro_score.objectives.maximum_likelihood import MaximumLikelihood
from numpyro_score.objectives.noise_contrastive import NoiseContrastiveEstimation
from numpyro_score.objectives.persistent import PersistentContrastiveDivergence
from numpyro_score.objectives.sliced import SlicedScoreMatching

__all__ = [
    "ContrastiveDivergence",
    "DenoisingScoreMatching",
    "DiffusionScoreMatching",
    "EnergyDiscrepancy",
    "ExplicitScoreMatching",
    "LadderScoreMatching",
    "MaximumLikelihood",
    "NoiseContrastiveEstimation",
    "PersistentContrastiveDivergence",
    "SlicedScoreMatching",
]
