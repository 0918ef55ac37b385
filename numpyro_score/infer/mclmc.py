"""MCLMC: Langevin dynamics at a fixed energy, unadjusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from blackjax.adaptation.mclmc_adaptation import MCLMCAdaptationState, mclmc_find_L_and_step_size
from blackjax.mcmc import mclmc
from blackjax.mcmc.integrators import IntegratorState
from blackjax.util import generate_unit_vector
from numpyro.infer import init_to_uniform

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._microcanonical import LogDensity, MicrocanonicalKernel, TrajectoryTuning
from numpyro_score.infer.registry import register_kernel

# Of `num_steps`, BlackJAX's three phases and a repeated third of the second take this share.
_TUNING_SHARE = 0.1 + 0.1 * 4 / 3 + 0.1


class MCLMCState(NamedTuple):
    """State of :class:`MCLMC`.

    - **i**, **z**, **potential_energy**, **rng_key** - as in :class:`MetropolisState`.
    - **score** - gradient of the log density at ``z``, flat, ``(d,)``.
    - **momentum** - a direction, of length 1, ``(d,)``.
    - **energy_error** - energy that the last step gained, which exact dynamics would keep.
    - **energy_variance** - mean of its square since sampling began, over d: the statistic that the
      step size is tuned by, and the measure of the bias.
    - **diverging** - whether the last step was not finite; the chain stayed, in a new direction.
    - **adapt_state** - ``step_size``, ``L``, ``inverse_mass_matrix``.
    """

    i: Array
    z: PyTree
    potential_energy: Array
    score: Array
    momentum: Array
    energy_error: Array
    energy_variance: Array
    diverging: Array
    adapt_state: TrajectoryTuning
    rng_key: Array


@register_kernel(
    "mclmc",
    description="Microcanonical Langevin: fast in many dimensions, biased by its step size",
    needs=("gradient", "tuning"),
    reference="Robnik et al. (2023)",
)
class MCLMC(MicrocanonicalKernel):
    r"""Microcanonical Langevin Monte Carlo, BlackJAX's ``mclmc``: **biased**.

    The particle moves at constant speed, steered by the score, and its direction forgets itself
    over a length L. There is no Metropolis test, so a bias is left, of the size of the energy that
    a step gains: ``energy_variance`` in the state reports :math:`E[\Delta E^2] / d`, which tuning
    brings to ``desired_energy_var``. Two gradients a step.

    Warm-up is BlackJAX's own tuning of L, step size and variances
    (``mclmc_find_L_and_step_size``): initialization runs it, for as many steps as warm-up has, and
    the steps of warm-up then pass at no cost. Beside other blocks of ``Gibbs`` warm-up takes steps,
    and tunes anew at five of them, for as many steps each.

    **References:** Robnik, De Luca, Silverstein & Seljak (2023), "Microcanonical Hamiltonian Monte
    Carlo"; Robnik & Seljak (2024), "Fluctuation without dissipation: Microcanonical Langevin Monte
    Carlo".

    :param model: NumPyro model. Give this or ``potential_fn``.
    :param potential_fn: potential energy of one position, any pytree of floating-point arrays.
    :param step_size: where tuning starts, or the value to use without; √d / 4 by default.
    :param L: likewise for the length; √d by default.
    :param inverse_mass_matrix: variances of the parameters, ``(d,)``, to start with.
    :param adapt_step_size: whether warm-up tunes step size and L; without, nothing is tuned.
    :param adapt_mass_matrix: whether warm-up tunes the variances as well.
    :param desired_energy_var: :math:`E[\Delta E^2] / d` to aim for. A smaller one has less bias.
    :param init_strategy: where chains start, see NumPyro's init strategies.
    :raises ValueError: for arguments out of range, and at initialization for fewer than two
        parameters and for what :func:`check_model` refuses.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.infer import MCLMC
    >>> kernel = MCLMC(potential_fn=lambda z: 0.5 * jnp.sum(z**2))
    >>> print(kernel)
    MCLMC(<lambda>, diagonal metric, biased: no Metropolis test)
    """

    state_cls = MCLMCState
    bias = "no Metropolis test"
    bias_statistic = "energy_variance"

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[PyTree], Array] | None = None,
        step_size: float | None = None,
        L: float | None = None,
        inverse_mass_matrix: Array | None = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        desired_energy_var: float = 5e-4,
        init_strategy: Callable[..., Any] = init_to_uniform,
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
        )
        check_positive(desired_energy_var, "desired_energy_var")
        self._desired_energy_var = desired_energy_var

    def _initial_fields(self, rng_key: Array, score: Array) -> dict[str, Array]:
        zero = jnp.zeros((), score.dtype)
        momentum = generate_unit_vector(rng_key, score)
        return {"momentum": momentum, "energy_error": zero, "energy_variance": zero}

    def _chain(self, rng_key: Array, state: MCLMCState) -> IntegratorState:
        return IntegratorState(
            jnp.zeros_like(state.score), state.momentum, -state.potential_energy, state.score
        )

    def _transition(
        self,
        rng_key: Array,
        chain: IntegratorState,
        logdensity_fn: LogDensity,
        state: MCLMCState,
        n: Array,
    ) -> tuple[IntegratorState, dict[str, Array]]:
        tuning = state.adapt_state
        chain, info = mclmc.build_kernel()(
            rng_key, chain, logdensity_fn, tuning.inverse_mass_matrix, tuning.L, tuning.step_size
        )
        square = info.energy_change**2 / state.score.size
        mean = state.energy_variance
        return chain, {
            "momentum": chain.momentum,
            "energy_error": info.energy_change,
            "energy_variance": mean + (square - mean) / n,
            "diverging": ~info.nonans,
        }

    def _tune(
        self,
        rng_key: Array,
        chain: IntegratorState,
        logdensity_fn: LogDensity,
        tuning: MCLMCAdaptationState,
    ) -> tuple[IntegratorState, MCLMCAdaptationState]:
        chain, tuned, _ = mclmc_find_L_and_step_size(
            mclmc.build_kernel(),
            num_steps=round(self._num_tuning / _TUNING_SHARE),
            state=chain,
            rng_key=rng_key,
            logdensity_fn=logdensity_fn,
            desired_energy_var=self._desired_energy_var,
            diagonal_preconditioning=self._adapt_mass_matrix,
            params=tuning,
        )
        return chain, tuned

    def get_diagnostics_str(self, state: MCLMCState) -> str:
        """Return what the progress bar says of one chain."""
        return (
            f"step size {state.adapt_state.step_size:.2e}, L {state.adapt_state.L:.2e}. "
            f"biased: {self.bias}, energy variance={state.energy_variance:.1e}"
        )
