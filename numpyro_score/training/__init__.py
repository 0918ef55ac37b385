"""Training: from data to a learned energy or score."""

from numpyro_score.training.fit import fit
from numpyro_score.training.result import FitResult, FitWarning

__all__ = ["FitResult", "FitWarning", "fit"]
