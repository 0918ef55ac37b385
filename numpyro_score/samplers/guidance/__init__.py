"""Draws of a diffusion given a measurement of them, without training it anew."""

from numpyro_score.samplers.guidance.base import Guidance, Likelihood, Linearized
from numpyro_score.samplers.guidance.dps import DPS
from numpyro_score.samplers.guidance.guided import guided_diffusion, guided_score
from numpyro_score.samplers.guidance.measurement import Measurement
from numpyro_score.samplers.guidance.moment_matching import MomentMatching
from numpyro_score.samplers.guidance.pigdm import PiGDM
from numpyro_score.samplers.guidance.twisted import Twisted, twisted_diffusion

__all__ = [
    "DPS",
    "Guidance",
    "Likelihood",
    "Linearized",
    "Measurement",
    "MomentMatching",
    "PiGDM",
    "Twisted",
    "guided_diffusion",
    "guided_score",
    "twisted_diffusion",
]
