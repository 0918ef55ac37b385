"""BlackJAX's NUTS, to compare the Langevin kernels with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from blackjax.mcmc import hmc, nuts
from numpyro.infer import init_to_uniform

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._trajectory import TrajectoryKernel
from numpyro_score.infer._transition import Origin, Transition
from numpyro_score.infer.registry import register_kernel


@register_kernel(
    "nuts",
    description="No-U-turn sampler, for comparison",
    needs=("gradient", "tuning"),
    reference="Hoffman & Gelman (2014)",
)
class NUTS(TrajectoryKernel):
    """No-U-turn sampler: BlackJAX's ``nuts`` for ``numpyro.infer.MCMC``, for comparison.

    Tuned and preconditioned like the Langevin kernels of this package.

    **References:** Hoffman & Gelman (2014), "The No-U-Turn Sampler"; Betancourt (2017), "A
    conceptual introduction to Hamiltonian Monte Carlo".

    :param max_tree_depth: a trajectory takes at most ``2**max_tree_depth`` gradients.

    The other parameters are those of :class:`MALA`, without ``path``: a tree weighs all its points
    against each other, and the local rule compares two.

    >>> from numpyro_score.infer import NUTS
    >>> NUTS(potential_fn=lambda z: 0.5 * z**2, dense_mass=True)
    NUTS(<lambda>, dense metric)
    """

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[PyTree], Array] | None = None,
        step_size: float = 0.1,
        inverse_mass_matrix: Array | None = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool = False,
        target_accept_prob: float = 0.8,
        max_tree_depth: int = 10,
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
        check_int(max_tree_depth, "max_tree_depth", 1)
        self._max_tree_depth = max_tree_depth

    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        start = hmc.HMCState(jnp.zeros_like(origin.score), origin.logdensity, origin.score)
        identity = jnp.ones_like(origin.score)
        state, info = nuts.build_kernel()(
            rng_key, start, logdensity_fn, step_size, identity, self._max_tree_depth
        )
        return self._report(state, info, jnp.any(state.position != 0))
