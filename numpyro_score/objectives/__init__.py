"""Objectives: what a network minimizes to become a score, one loss per example."""

from numpyro_score.objectives.denoising import DenoisingScoreMatching
from numpyro_score.objectives.explicit import ExplicitScoreMatching

__all__ = ["DenoisingScoreMatching", "ExplicitScoreMatching"]
