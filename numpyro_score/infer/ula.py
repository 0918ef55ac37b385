"""ULA: Langevin dynamics without a test, biased by its step size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.mcmc.diffusions import DiffusionState, overdamped_langevin
from numpyro.infer import init_to_uniform

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._transition import Origin, Transition
from numpyro_score.infer._warmup import AdaptState
from numpyro_score.infer.preconditioned import PreconditionedKernel
from numpyro_score.infer.registry import register_kernel


class ULAState(NamedTuple):
    """State of :class:`ULA`: a :class:`MetropolisState` with an error in place of an acceptance.

    - **energy_error** - log of the ratio that a Metropolis test of the last step would have
      used; 0 for an exact step.
    - **energy_variance** - mean of its square since the start of warm-up, or of sampling, over d:
      it shows the bias that the missing test leaves. (The error itself has a mean of 0 for any
      chain that is reversible, however biased.)
    - **diverging** - whether a test would have accepted the step with probability 0 in floating
      point; where its energy is not finite, the chain stays.
    """

    i: Array
    z: PyTree
    potential_energy: Array
    score: Array
    energy_error: Array
    energy_variance: Array
    diverging: Array
    adapt_state: AdaptState
    rng_key: Array


@register_kernel(
    "ula",
    description="Langevin step without a test: biased by its step size",
    needs=("gradient", "tuning"),
    reference="Durmus & Moulines (2017)",
)
class ULA(PreconditionedKernel):
    r"""Unadjusted Langevin algorithm, BlackJAX's ``overdamped_langevin``: **biased**.

    :math:`z' = z + \varepsilon \Sigma \nabla \log p(z) + \sqrt{2\varepsilon} L \xi`, always
    taken. The chain converges to a density that is off by :math:`O(\varepsilon)`: on a Gaussian in
    its own metric every variance is too large by the factor :math:`1 / (1 - \varepsilon/2)`,
    whatever R-hat says. There is no acceptance rate; the state reports ``energy_error``, and its
    mean square over d, ``energy_variance``: :math:`\varepsilon^3 / (2 - \varepsilon)` on such a
    Gaussian, so that 0.08 tells of a third too much variance. Use :class:`MALA` unless you know why
    not.

    Warm-up is Metropolis-adjusted, so that a step size that explodes cannot; it tunes the step
    size until a Metropolis test would accept ``target_accept_prob`` of the steps, which keeps the
    bias small.

    **References:** Roberts & Tweedie (1996); Durmus & Moulines (2017), "Nonasymptotic
    convergence analysis for the unadjusted Langevin algorithm".

    The parameters are those of :class:`MALA`, without ``path``: nothing is tested once warm-up is
    over.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.infer import ULA
    >>> kernel = ULA(potential_fn=lambda z: 0.5 * z**2, step_size=0.5, adapt_step_size=False)
    >>> print(kernel)
    ULA(<lambda>, diagonal metric, biased: no Metropolis test)
    """

    state_cls = ULAState
    statistic = "energy_error"
    bias = "no Metropolis test"
    mean_field = "energy_variance"
    bias_statistic = "energy_variance"

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[PyTree], Array] | None = None,
        step_size: float = 0.1,
        inverse_mass_matrix: Array | None = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool = False,
        target_accept_prob: float = 0.95,
        init_strategy: Callable[..., Any] = init_to_uniform,
        *,
        max_rank: int | None = None,
        adaptation: Literal["per-chain", "pooled"] = "per-chain",
    ) -> None:
        super().__init__(
            model,
            potential_fn,
            step_size,
            inverse_mass_matrix,
            adapt_step_size,
            adapt_mass_matrix,
            dense_mass,
            target_accept_prob,
            init_strategy,
            max_rank=max_rank,
            adaptation=adaptation,
        )

    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        step_key, accept_key = jax.random.split(rng_key)
        start = DiffusionState(jnp.zeros_like(origin.score), origin.logdensity, origin.score)
        integrate = overdamped_langevin(jax.value_and_grad(logdensity_fn))
        new = integrate(step_key, start, step_size)
        error = _log_metropolis_ratio(start, new, step_size)
        accept_prob = jnp.where(jnp.isnan(error), 0.0, jnp.exp(jnp.minimum(error, 0.0)))
        accepted = jax.random.uniform(accept_key, dtype=accept_prob.dtype) < accept_prob
        moved = jnp.where(in_warmup, accepted, jnp.isfinite(error))
        return Transition(
            step=jnp.where(moved, new.position, start.position),
            logdensity=jnp.where(moved, new.logdensity, start.logdensity),
            score=jnp.where(moved, new.logdensity_grad, start.logdensity_grad),
            accept_prob=accept_prob,
            moved=moved,
            diverging=accept_prob == 0,
            statistic=error,
        )

    def _averaged(self, transition: Transition) -> Array:
        # A step that is not finite was not taken, and counts as diverging.
        square = transition.statistic**2 / transition.step.shape[-1]
        return jnp.where(jnp.isfinite(square), square, 0.0)

    def get_diagnostics_str(self, state: ULAState) -> str:
        """Return what the progress bar says of one chain."""
        return (
            f"step size {state.adapt_state.step_size:.2e}. biased: {self.bias}, "
            f"energy variance={state.energy_variance:.1e}"
        )


def _log_metropolis_ratio(old: DiffusionState, new: DiffusionState, step_size: Array) -> Array:
    """Return log p(x') q(x | x') - log p(x) q(x' | x) of a Langevin step."""

    def log_proposal(to: Array, start: DiffusionState) -> Array:
        mean = start.position + step_size * start.logdensity_grad
        return -jnp.sum((to - mean) ** 2) / (4 * step_size)

    forward = log_proposal(new.position, old)
    backward = log_proposal(old.position, new)
    return new.logdensity - old.logdensity + backward - forward
