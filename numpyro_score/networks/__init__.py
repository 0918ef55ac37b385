"""Networks: small Equinox modules for energies and scores, and adapters for other libraries."""

from numpyro_score.networks.adapters import as_network, from_function, from_linen, from_nnx
from numpyro_score.networks.base import GaussianBase
from numpyro_score.networks.mlp import EnergyMLP, ScoreMLP
from numpyro_score.networks.score import as_score, score_fn

__all__ = [
    "EnergyMLP",
    "GaussianBase",
    "ScoreMLP",
    "as_network",
    "as_score",
    "from_function",
    "from_linen",
    "from_nnx",
    "score_fn",
]
