"""Diffusions that turn data into noise: what noise there is at which time."""

from numpyro_score.sde.base import SDE
from numpyro_score.sde.edm import EDM
from numpyro_score.sde.from_time import From
from numpyro_score.sde.in_time import InTime
from numpyro_score.sde.ladder import geometric_ladder, largest_distance
from numpyro_score.sde.noise_level import time_of
from numpyro_score.sde.predictions import convert
from numpyro_score.sde.sub_vp import SubVP
from numpyro_score.sde.time_grid import time_grid
from numpyro_score.sde.ve import VE
from numpyro_score.sde.vp import VP, CosineVP

__all__ = [
    "EDM",
    "SDE",
    "VE",
    "VP",
    "CosineVP",
    "From",
    "InTime",
    "SubVP",
    "convert",
    "geometric_ladder",
    "largest_distance",
    "time_grid",
    "time_of",
]
