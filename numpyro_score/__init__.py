"""Learned scores and energies as citizens of a NumPyro model.

Learn a density with :func:`numpyro_score.training.fit`, write it in a model as an
:class:`numpyro_score.distributions.EnergyDistribution`, and draw from the posterior with
``numpyro.infer.MCMC`` and :class:`numpyro_score.infer.MALA`.
"""

from importlib.metadata import version

from numpyro_score import (
    diagnostics,
    distributions,
    infer,
    networks,
    objectives,
    plotting,
    sde,
    training,
)
from numpyro_score.persistence import LoadError, load, save

__version__ = version("numpyro_score")
__all__ = [
    "LoadError",
    "__version__",
    "diagnostics",
    "distributions",
    "infer",
    "load",
    "networks",
    "objectives",
    "plotting",
    "save",
    "sde",
    "training",
]
