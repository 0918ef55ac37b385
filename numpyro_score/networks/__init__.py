"""Networks: small Equinox modules for energies and scores, and adapters for other libraries."""

from numpyro_score.networks.adapters import as_network, from_function, from_linen, from_nnx
from numpyro_score.networks.base import GaussianBase
from numpyro_score.networks.causal import CausalConvDensity
from numpyro_score.networks.density import DensityNetwork
from numpyro_score.networks.flow import FlowDensity
from numpyro_score.networks.from_denoiser import DenoiserEnergy, InnerProductEnergy
from numpyro_score.networks.from_distribution import from_distribution, from_flowjax
from numpyro_score.networks.images import ConvEnergy, UNet
from numpyro_score.networks.log_normalizer import LogNormalizerMLP
from numpyro_score.networks.mlp import EnergyMLP, ScoreMLP
from numpyro_score.networks.noise_mlp import AtNoise, NoiseEnergyMLP, NoiseScoreMLP
from numpyro_score.networks.noised_base import NoisedGaussian
from numpyro_score.networks.normalized import NormalizedEnergy
from numpyro_score.networks.score import as_score, energy_fn, score_fn
from numpyro_score.networks.tilted import TiltedEnergy
from numpyro_score.networks.vae import VAE

__all__ = [
    "AtNoise",
    "CausalConvDensity",
    "ConvEnergy",
    "DenoiserEnergy",
    "DensityNetwork",
    "EnergyMLP",
    "FlowDensity",
    "GaussianBase",
    "InnerProductEnergy",
    "LogNormalizerMLP",
    "NoiseEnergyMLP",
    "NoiseScoreMLP",
    "NoisedGaussian",
    "NormalizedEnergy",
    "ScoreMLP",
    "TiltedEnergy",
    "UNet",
    "VAE",
    "as_network",
    "as_score",
    "energy_fn",
    "from_distribution",
    "from_flowjax",
    "from_function",
    "from_linen",
    "from_nnx",
    "score_fn",
]
