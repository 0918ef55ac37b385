"""Adjusted MCLMC: microcanonical trajectories with a Metropolis test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from blackjax.adaptation.adjusted_mclmc_adaptation import adjusted_mclmc_find_L_and_step_size
from blackjax.adaptation.mclmc_adaptation import MCLMCAdaptationState
from blackjax.mcmc import adjusted_mclmc_dynamic
from blackjax.mcmc.dynamic_hmc import DynamicHMCState
from numpyro.infer import init_to_uniform

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._arguments import check_probability
from numpyro_score.infer._microcanonical import LogDensity, MicrocanonicalKernel, TrajectoryTuning
from numpyro_score.infer._score_sites import Marks
from numpyro_score.infer._trajectory import MAX_STEPS
from numpyro_score.infer.registry import register_kernel

# Of `num_steps`, the first of BlackJAX's phases runs twice and the second once.
_TUNING_SHARE = 2 * 0.1 + 0.1


class AdjustedMCLMCState(NamedTuple):
    """State of :class:`AdjustedMCLMC`.

    The fields of :class:`TrajectoryState`; the **score** is flat and not whitened, and
    **adapt_state** holds ``step_size``, ``L`` and ``inverse_mass_matrix``.
    """

    i: Array
    z: PyTree
    potential_energy: Array
    score: Array
    accept_prob: Array
    mean_accept_prob: Array
    diverging: Array
    energy: Array
    num_steps: Array
    adapt_state: TrajectoryTuning
    rng_key: Array
    site_scores: Marks = {}  # noqa: RUF012


@register_kernel(
    "adjusted_mclmc",
    description="Microcanonical trajectories with a Metropolis test: exact",
    needs=("gradient", "tuning"),
    reference="Robnik, Cohn-Gordon & Seljak (2025)",
)
class AdjustedMCLMC(MicrocanonicalKernel):
    """Metropolis-adjusted microcanonical sampler: BlackJAX's ``adjusted_mclmc_dynamic``.

    A trajectory of microcanonical dynamics, of random length about L, from a fresh direction, with
    a Metropolis test of its energy error: exact, where :class:`MCLMC` is biased. A trajectory takes
    about L / ``step_size`` steps, 1,024 on average at most.

    Warm-up is BlackJAX's own tuning (``adjusted_mclmc_find_L_and_step_size``), which keeps L at two
    steps: initialization runs it, as for :class:`MCLMC`.

    **References:** Robnik, Cohn-Gordon & Seljak (2025), "Metropolis adjusted microcanonical
    Hamiltonian Monte Carlo".

    :param target_accept_prob: mean acceptance that the step size is tuned to.
    :param path: see :class:`MALA`, likewise ``path_nodes``. Tuning is anchored all the same.

    The other parameters are those of :class:`MCLMC`.

    >>> from numpyro_score.infer import AdjustedMCLMC
    >>> AdjustedMCLMC(potential_fn=lambda z: 0.5 * z @ z)
    AdjustedMCLMC(<lambda>, diagonal metric)
    """

    state_cls = AdjustedMCLMCState
    two_points = True

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[PyTree], Array] | None = None,
        step_size: float | None = None,
        L: float | None = None,
        inverse_mass_matrix: Array | None = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        target_accept_prob: float = 0.9,
        init_strategy: Callable[..., Any] = init_to_uniform,
        *,
        path: Literal["anchored", "local"] = "anchored",
        path_nodes: int | None = None,
    ) -> None:
        super().__init__(
            model,
            potential_fn,
            step_size,
            L,
            inverse_mass_matrix,
            adapt_step_size,
            adapt_mass_matrix,
            init_strategy,
            path,
            path_nodes,
        )
        check_probability(target_accept_prob, "target_accept_prob")
        self._target_accept_prob = target_accept_prob

    def _initial_fields(self, rng_key: Array, score: Array) -> dict[str, Array]:
        zero = jnp.zeros((), score.dtype)
        fields = dict.fromkeys(("accept_prob", "mean_accept_prob", "energy"), zero)
        return fields | {"num_steps": jnp.zeros((), int)}

    def _chain(self, rng_key: Array, state: AdjustedMCLMCState) -> DynamicHMCState:
        return DynamicHMCState(
            jnp.zeros_like(state.score), -state.potential_energy, state.score, rng_key
        )

    def _kernel(self) -> Callable[..., Any]:
        lengths = adjusted_mclmc_dynamic.make_random_trajectory_length_fn(True)
        return adjusted_mclmc_dynamic.build_kernel(integration_steps_fn=lengths)

    def _transition(
        self,
        rng_key: Array,
        chain: DynamicHMCState,
        logdensity_fn: LogDensity,
        state: AdjustedMCLMCState,
        n: Array,
    ) -> tuple[DynamicHMCState, dict[str, Array]]:
        tuning = state.adapt_state
        chain, info = self._kernel()(
            rng_key,
            chain,
            logdensity_fn,
            step_size=tuning.step_size,
            inverse_mass_matrix=tuning.inverse_mass_matrix,
            integration_steps_params=(jnp.minimum(tuning.L / tuning.step_size, MAX_STEPS),),
        )
        mean = state.mean_accept_prob
        return chain, {
            "accept_prob": info.acceptance_rate,
            "mean_accept_prob": mean + (info.acceptance_rate - mean) / n,
            "diverging": info.is_divergent,
            "energy": info.energy,
            "num_steps": jnp.asarray(info.num_integration_steps, int),
        }

    def _tune(
        self,
        rng_key: Array,
        chain: DynamicHMCState,
        logdensity_fn: LogDensity,
        tuning: MCLMCAdaptationState,
    ) -> tuple[DynamicHMCState, MCLMCAdaptationState]:
        chain, tuned, _ = adjusted_mclmc_find_L_and_step_size(
            self._kernel(),
            logdensity_fn,
            num_steps=round(self._num_tuning / _TUNING_SHARE),
            state=chain,
            rng_key=rng_key,
            target=self._target_accept_prob,
            diagonal_preconditioning=self._adapt_mass_matrix,
            params=tuning,
        )
        return chain, tuned

    def get_diagnostics_str(self, state: AdjustedMCLMCState) -> str:
        """Return what the progress bar says of one chain."""
        return (
            f"{state.num_steps} steps of size {state.adapt_state.step_size:.2e}. "
            f"acc. prob={state.mean_accept_prob:.2f}"
        )
