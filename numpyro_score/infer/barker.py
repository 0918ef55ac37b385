"""Barker's proposal: a gradient-based step that forgives a step size that is too large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from blackjax.mcmc import barker
from numpyro.infer import init_to_uniform

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._state import MetropolisState
from numpyro_score.infer._transition import Origin, Transition
from numpyro_score.infer.preconditioned import PreconditionedKernel
from numpyro_score.infer.registry import register_kernel

# BlackJAX computes log(1 + exp(ξ s)), which overflows in float32 for ξ s > 88: the ratio is then
# inf - inf, and a chain that starts far out would stay there. A move ξ is below 5.6 ε in float32.
_STEEPEST = 15.0


@jax.custom_vjp
def _bound_gradient(v: Array, bound: Array) -> Array:
    """Return ``v``; its gradient is kept within ``bound``.

    Any field may steer the proposal, as long as both directions see the same one. Where ε s is
    above 15 the direction is certain anyway.
    """
    return v


_bound_gradient.defvjp(
    lambda v, bound: (v, bound),
    lambda bound, gradient: (jnp.clip(gradient, -bound, bound), jnp.zeros_like(bound)),
)


@register_kernel(
    "barker",
    description="Barker's proposal: robust to the step size, slower than MALA where MALA works",
    needs=("gradient", "tuning"),
    reference="Livingstone & Zanella (2022)",
)
class Barker(PreconditionedKernel):
    r"""Barker's proposal, BlackJAX's ``barker`` for ``numpyro.infer.MCMC``.

    Each whitened coordinate moves by :math:`\pm\xi`, :math:`\xi \sim N(0, \varepsilon^2)`, with the
    sign + with probability :math:`1 / (1 + e^{-\xi s})` for the score s: the gradient chooses a
    direction, but never a length, so that a large gradient cannot throw the chain. One gradient a
    step. ``step_size`` is the standard deviation ε of the move.

    **References:** Livingstone & Zanella (2022), "The Barker proposal: combining robustness and
    efficiency in gradient-based MCMC"; Vogrinc, Livingstone & Zanella (2023), "Optimal design of
    the Barker proposal and other locally balanced Metropolis-Hastings algorithms", for the target
    acceptance of 0.4.

    The other parameters are those of :class:`MALA`.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.infer import Barker
    >>> kernel = Barker(potential_fn=lambda z: 0.5 * jnp.sum(z**2))
    >>> mcmc = MCMC(kernel, num_warmup=300, num_samples=1000, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), init_params=jnp.zeros(2))
    >>> mcmc.get_samples().shape
    (1000, 2)
    """

    state_cls = MetropolisState
    two_points = True

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[PyTree], Array] | None = None,
        step_size: float = 1.0,
        inverse_mass_matrix: Array | None = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool = False,
        target_accept_prob: float = 0.4,
        init_strategy: Callable[..., Any] = init_to_uniform,
        *,
        max_rank: int | None = None,
        adaptation: Literal["per-chain", "pooled"] = "per-chain",
        path: Literal["anchored", "local"] = "anchored",
        path_nodes: int | None = None,
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
            path=path,
            path_nodes=path_nodes,
        )

    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        bound = _STEEPEST / step_size
        score = jnp.clip(origin.score, -bound, bound)
        start = barker.BarkerState(jnp.zeros_like(score), origin.logdensity, score)

        def bounded_logdensity_fn(v: Array) -> Array:
            return logdensity_fn(_bound_gradient(v, bound))

        state, info = barker.build_kernel()(rng_key, start, bounded_logdensity_fn, step_size)
        accept_prob = jnp.nan_to_num(info.acceptance_rate)
        return Transition(
            step=state.position,
            logdensity=state.logdensity,
            score=state.logdensity_grad,
            accept_prob=accept_prob,
            moved=info.is_accepted,
            diverging=accept_prob == 0,
            statistic=accept_prob,
        )
