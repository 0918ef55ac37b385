"""What a run depends on, by which a checkpoint knows it again."""

from __future__ import annotations

from typing import Any

import numpyro.infer

from numpyro_score._array_file import key_digest
from numpyro_score._typing import Array
from numpyro_score.infer._kernel_options import kernel_options
from numpyro_score.infer._netcdf import Variable
from numpyro_score.infer._run_arguments import RunArguments
from numpyro_score.infer._upstream import Plan


def fingerprint(
    mcmc: numpyro.infer.MCMC,
    plan: Plan,
    keys: Array,
    arguments: RunArguments,
    variables: list[Variable],
) -> dict[str, Any]:
    """Return it by names that tell a user what differs.

    :param keys: of the chains.
    """
    return {
        "kernel": kernel_options(mcmc.sampler),
        "bias": getattr(mcmc.sampler, "bias", ""),
        "num_warmup": mcmc.num_warmup,
        "num_samples": mcmc.num_samples,
        "num_steps": plan.num_steps,
        "num_kept": plan.num_kept,
        "thinning": mcmc.thinning,
        "num_chains": mcmc.num_chains,
        # One chain is one chain.
        "chain_method": mcmc.chain_method if mcmc.num_chains > 1 else "sequential",
        "begins": "with warm-up" if mcmc.post_warmup_state is None else "at a state",
        "rng_key": key_digest(keys),
        "data": arguments.digest()[:16],
        "draws": [f"{v.group}/{v.name}: {v.dtype}{list(v.shape)}" for v in variables],
    }
