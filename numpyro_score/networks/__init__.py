"""Networks: small Equinox modules for energies and scores, and adapters for other libraries."""

from numpyro_score.networks.adapters import as_network, from_function, from_linen, from_nnx
from numpyro_score.networks.base import GaussianBase
from numpyro_score.networks.from_denoiser import DenoiserEnergy, InnerProductEnergy
from numpyro_score.networks.images import ConvEnergy, UNet
from numpyro_score.networks.log_normalizer import LogNormalizerMLP
from numpyro_score.networks.mlp import EnergyMLP, ScoreMLP
from numpyro_score.networks.normalized import NormalizedEnergy
from numpyro_score.networks.score import as_score, energy_fn, score_fn

__all__ = [
    "ConvEnergy",
    "DenoiserEnergy",
    "EnergyMLP",
    "GaussianBase",
    "InnerProductEnergy",
    "LogNormalizerMLP",
    "NormalizedEnergy",
    "ScoreMLP",
    "UNet",
    "as_network",
    "as_score",
    "energy_fn",
    "from_function",
    "from_linen",
    "from_nnx",
    "score_fn",
]
