"""Procedures that draw from a score or a log density, outside of any model."""

from numpyro_score.samplers.langevin import Langevin, langevin, tune_step_size

__all__ = ["Langevin", "langevin", "tune_step_size"]
