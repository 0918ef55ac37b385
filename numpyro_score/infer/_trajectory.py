"""What BlackJAX's HMC and NUTS have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from blackjax.mcmc import hmc

from numpyro_score._typing import Array
from numpyro_score.infer._state import TrajectoryState
from numpyro_score.infer._transition import Origin, Transition
from numpyro_score.infer.preconditioned import PreconditionedKernel

# A step size that went astray must not make one step last for hours.
MAX_STEPS = 1024


class TrajectoryKernel(PreconditionedKernel):
    """Kernel that takes many gradients a step, and says how many."""

    state_cls = TrajectoryState
    carry_fields = ("energy", "num_steps")
    one_evaluation = False
    wait_for_all = True

    def _initial_carry(self, rng_key: Array, score: Array) -> dict[str, Any]:
        return {"energy": jnp.zeros((), score.dtype), "num_steps": jnp.zeros((), int)}

    def _trajectory(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        num_steps: int | Array,
    ) -> tuple[hmc.HMCState, hmc.HMCInfo]:
        """Take so many leapfrog steps of BlackJAX's HMC from the origin, and test the end."""
        start = hmc.HMCState(jnp.zeros_like(origin.score), origin.logdensity, origin.score)
        identity = jnp.ones_like(origin.score)
        return hmc.build_kernel()(rng_key, start, logdensity_fn, step_size, identity, num_steps)

    def _report(self, state: hmc.HMCState, info: Any, moved: Array) -> Transition:
        num_steps = jnp.asarray(info.num_integration_steps, int)
        return Transition(
            step=state.position,
            logdensity=state.logdensity,
            score=state.logdensity_grad,
            accept_prob=info.acceptance_rate,
            moved=moved,
            diverging=info.is_divergent,
            statistic=info.acceptance_rate,
            carry={"energy": info.energy, "num_steps": num_steps},
        )

    def get_diagnostics_str(self, state: TrajectoryState) -> str:
        """Return what the progress bar says of one chain."""
        return f"{state.num_steps} steps. {super().get_diagnostics_str(state)}"
