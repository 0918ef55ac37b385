"""Training: from data to a learned energy or score."""

from numpyro_score._array_file import CheckpointError
from numpyro_score.training.fit import fit
from numpyro_score.training.result import FitResult, FitWarning
from numpyro_score.training.svi import ScoreMatchingLoss

__all__ = ["CheckpointError", "FitResult", "FitWarning", "ScoreMatchingLoss", "fit"]
