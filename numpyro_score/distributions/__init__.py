"""Learned densities as NumPyro distributions."""

from numpyro_score.distributions.base import LearnedDistribution
from numpyro_score.distributions.conditional import compose_conditions
from numpyro_score.distributions.density import DensityDistribution
from numpyro_score.distributions.dequantized import Dequantized, dequantize
from numpyro_score.distributions.diffusion import DiffusionDistribution
from numpyro_score.distributions.energy import EnergyDistribution
from numpyro_score.distributions.mixture import Mixture
from numpyro_score.distributions.normalizer import LogNormalizerEstimate, estimate_log_normalizer
from numpyro_score.distributions.product import Product, tempered
from numpyro_score.distributions.score import ScoreDistribution

__all__ = [
    "DensityDistribution",
    "Dequantized",
    "DiffusionDistribution",
    "EnergyDistribution",
    "LearnedDistribution",
    "LogNormalizerEstimate",
    "Mixture",
    "Product",
    "ScoreDistribution",
    "compose_conditions",
    "dequantize",
    "estimate_log_normalizer",
    "tempered",
]
