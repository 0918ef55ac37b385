"""BlackJAX's Langevin kernels for ``numpyro.infer.MCMC``, and checks of the models they sample."""

from numpyro_score.infer._warmup import AdaptState
from numpyro_score.infer.adapter import BlackJAXKernel
from numpyro_score.infer.mala import MALA, MALAState
from numpyro_score.infer.mcmc import MCMC
from numpyro_score.infer.model_checks import DoublyIntractableError, ModelError, check_model
from numpyro_score.infer.ula import ULA, ULAState

__all__ = [
    "AdaptState",
    "BlackJAXKernel",
    "DoublyIntractableError",
    "MALA",
    "MALAState",
    "MCMC",
    "ModelError",
    "ULA",
    "ULAState",
    "check_model",
]
