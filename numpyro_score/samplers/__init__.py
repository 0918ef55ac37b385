"""Procedures that draw from a score or a log density, outside of any model."""

from numpyro_score.samplers.annealed_importance import Annealed, Start, annealed_importance
from numpyro_score.samplers.langevin import Langevin, langevin, tune_step_size

__all__ = ["Annealed", "Langevin", "Start", "annealed_importance", "langevin", "tune_step_size"]
