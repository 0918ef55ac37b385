"""BlackJAX's Langevin kernels for ``numpyro.infer.MCMC``, and checks of the models they sample."""

from numpyro_score.infer._microcanonical import TrajectoryTuning
from numpyro_score.infer._state import MetropolisState, MomentumState, TrajectoryState
from numpyro_score.infer._step_size import StepSize
from numpyro_score.infer._warmup import AdaptState
from numpyro_score.infer.adapter import BlackJAXKernel
from numpyro_score.infer.adjusted_mclmc import AdjustedMCLMC, AdjustedMCLMCState
from numpyro_score.infer.algorithm import AlgorithmKernel, AlgorithmState, kernel_from_algorithm
from numpyro_score.infer.annealed_langevin import AnnealedLangevin
from numpyro_score.infer.barker import Barker
from numpyro_score.infer.checkpoint import CheckpointError, open_checkpoint
from numpyro_score.infer.chees import ChEES
from numpyro_score.infer.exchange import Exchange
from numpyro_score.infer.ghmc import GHMC
from numpyro_score.infer.hmc import HMC
from numpyro_score.infer.host_data import BatchStream, fetch_rows
from numpyro_score.infer.mala import MALA
from numpyro_score.infer.mclmc import MCLMC, MCLMCState
from numpyro_score.infer.mcmc import MCMC
from numpyro_score.infer.model_checks import DoublyIntractableError, ModelError, check_model
from numpyro_score.infer.nuts import NUTS
from numpyro_score.infer.particles import ParticleInference
from numpyro_score.infer.preconditioned import PreconditionedKernel
from numpyro_score.infer.registry import (
    KernelInfo,
    KernelTable,
    available_kernels,
    get_kernel,
    register_kernel,
)
from numpyro_score.infer.replica_exchange import ReplicaExchange, ReplicaExchangeState
from numpyro_score.infer.sghmc import SGHMC, SGHMCState
from numpyro_score.infer.sgld import SGLD, SGLDState
from numpyro_score.infer.sgnht import SGNHT, SGNHTState
from numpyro_score.infer.state_io import StateFileError, load_state, save_state
from numpyro_score.infer.stochastic import StochasticGradientKernel
from numpyro_score.infer.tempered_smc import Stages, TemperedSMC
from numpyro_score.infer.ula import ULA, ULAState

__all__ = [
    "AdaptState",
    "AdjustedMCLMC",
    "AdjustedMCLMCState",
    "AlgorithmKernel",
    "AlgorithmState",
    "AnnealedLangevin",
    "Barker",
    "BatchStream",
    "BlackJAXKernel",
    "ChEES",
    "CheckpointError",
    "DoublyIntractableError",
    "Exchange",
    "GHMC",
    "HMC",
    "KernelInfo",
    "KernelTable",
    "MALA",
    "MCLMC",
    "MCLMCState",
    "MCMC",
    "MetropolisState",
    "ModelError",
    "MomentumState",
    "NUTS",
    "ParticleInference",
    "PreconditionedKernel",
    "ReplicaExchange",
    "ReplicaExchangeState",
    "StateFileError",
    "SGHMC",
    "SGHMCState",
    "SGLD",
    "SGLDState",
    "SGNHT",
    "SGNHTState",
    "Stages",
    "StepSize",
    "StochasticGradientKernel",
    "TemperedSMC",
    "TrajectoryState",
    "TrajectoryTuning",
    "ULA",
    "ULAState",
    "available_kernels",
    "check_model",
    "fetch_rows",
    "get_kernel",
    "kernel_from_algorithm",
    "load_state",
    "open_checkpoint",
    "register_kernel",
    "save_state",
]
