"""BlackJAX's Langevin kernels for ``numpyro.infer.MCMC``, and checks of the models they sample."""

from numpyro_score.infer._step_size import StepSize
from numpyro_score.infer._warmup import AdaptState
from numpyro_score.infer.adapter import BlackJAXKernel
from numpyro_score.infer.host_data import BatchStream, fetch_rows
from numpyro_score.infer.mala import MALA, MALAState
from numpyro_score.infer.model_checks import DoublyIntractableError, ModelError, check_model
from numpyro_score.infer.preconditioned import PreconditionedKernel
from numpyro_score.infer.sghmc import SGHMC, SGHMCState
from numpyro_score.infer.sgld import SGLD, SGLDState
from numpyro_score.infer.sgnht import SGNHT, SGNHTState
from numpyro_score.infer.stochastic import StochasticGradientKernel
from numpyro_score.infer.ula import ULA, ULAState

__all__ = [
    "AdaptState",
    "BatchStream",
    "BlackJAXKernel",
    "DoublyIntractableError",
    "MALA",
    "MALAState",
    "ModelError",
    "PreconditionedKernel",
    "SGHMC",
    "SGHMCState",
    "SGLD",
    "SGLDState",
    "SGNHT",
    "SGNHTState",
    "StepSize",
    "StochasticGradientKernel",
    "ULA",
    "ULAState",
    "check_model",
    "fetch_rows",
]
