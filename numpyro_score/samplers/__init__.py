"""Procedures that draw from a score or a log density, outside of any model."""

from numpyro_score.samplers import guidance
from numpyro_score.samplers.annealed_importance import Annealed, Start, annealed_importance
from numpyro_score.samplers.annealed_langevin import annealed_langevin
from numpyro_score.samplers.composed_diffusion import (
    AnnealedParticles,
    ComposedDraws,
    composed_diffusion,
)
from numpyro_score.samplers.flow_density import flow_log_density, last_normal
from numpyro_score.samplers.langevin import Langevin, langevin, tune_step_size
from numpyro_score.samplers.probability_flow import probability_flow
from numpyro_score.samplers.reverse_sde import reverse_sde

__all__ = [
    "Annealed",
    "AnnealedParticles",
    "ComposedDraws",
    "Langevin",
    "Start",
    "annealed_importance",
    "annealed_langevin",
    "composed_diffusion",
    "flow_log_density",
    "guidance",
    "langevin",
    "last_normal",
    "probability_flow",
    "reverse_sde",
    "tune_step_size",
]
