"""GHMC: underdamped Langevin dynamics with a Metropolis test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from blackjax.mcmc import ghmc
from numpyro.infer import init_to_uniform

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._state import MomentumState
from numpyro_score.infer._transition import Origin, Transition
from numpyro_score.infer.preconditioned import PreconditionedKernel
from numpyro_score.infer.registry import register_kernel


@register_kernel(
    "ghmc",
    description="Metropolized underdamped Langevin: momentum persists, one gradient a step",
    needs=("gradient", "tuning"),
    reference="Horowitz (1991); Neal (2020)",
)
class GHMC(PreconditionedKernel):
    r"""Generalized HMC: BlackJAX's ``ghmc`` for ``numpyro.infer.MCMC``.

    Underdamped Langevin dynamics. A step refreshes a part of the momentum,
    :math:`p \leftarrow \sqrt{1-\alpha}\, p + \sqrt{\alpha}\, \xi`, takes one leapfrog step of
    size ε and tests it; where the test fails, the momentum is reversed. The test is Neal's
    non-reversible slice, which lets acceptances come in long runs. One gradient a step.

    The part refreshed is :math:`\alpha = 1 - e^{-2 \varepsilon \gamma}` for the ``damping`` γ, in
    the units of whitened coordinates, in which the posterior has a standard deviation of about 1;
    the slice moves by α / 2 a step. Both as in MEADS.

    **References:** Horowitz (1991), "A generalized guided Monte Carlo algorithm"; Neal (2020),
    "Non-reversibly updating a uniform [0, 1] value for Metropolis accept/reject decisions";
    Hoffman & Sountsov (2022), "Tuning-free generalized Hamiltonian Monte Carlo".

    :param damping: rate γ at which the momentum forgets, in whitened units.

    The other parameters are those of :class:`MALA`; ``step_size`` is that of the leapfrog step.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.infer import GHMC
    >>> kernel = GHMC(potential_fn=lambda z: 0.5 * jnp.sum(z**2))
    >>> mcmc = MCMC(kernel, num_warmup=300, num_samples=1000, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), init_params=jnp.zeros(2))
    >>> mcmc.get_samples().shape
    (1000, 2)
    """

    state_cls = MomentumState
    two_points = True
    carry_fields = ("momentum", "slice")
    one_evaluation = False  # BlackJAX's loop of one leapfrog step is a loop all the same

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[PyTree], Array] | None = None,
        step_size: float = 0.1,
        inverse_mass_matrix: Array | None = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool = False,
        target_accept_prob: float = 0.9,
        init_strategy: Callable[..., Any] = init_to_uniform,
        *,
        damping: float = 1.0,
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
        check_positive(damping, "damping")
        self._damping = damping

    def _initial_carry(self, rng_key: Array, score: Array) -> dict[str, Any]:
        momentum_key, slice_key = jax.random.split(rng_key)
        return {
            "momentum": jax.random.normal(momentum_key, score.shape, score.dtype),
            "slice": jax.random.uniform(slice_key, minval=-1.0, maxval=1.0, dtype=score.dtype),
        }

    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        start = ghmc.GHMCState(
            jnp.zeros_like(origin.score),
            origin.carry["momentum"],
            origin.logdensity,
            origin.score,
            origin.carry["slice"],
        )
        alpha = -jnp.expm1(-2 * step_size * self._damping)
        delta = alpha / 2
        ones = jnp.ones_like(origin.score)
        state, info = ghmc.build_kernel()(
            rng_key, start, logdensity_fn, step_size, ones, alpha, delta
        )
        # Where it rejects, BlackJAX computes 0 · exp(ΔE): NaN for a large ΔE, unless XLA sees the
        # zero, and a NaN rejects all steps to come. A rejection leaves the slice where it is.
        shifted = (start.slice + 1 + delta) % 2 - 1
        return Transition(
            step=state.position,
            logdensity=state.logdensity,
            score=state.logdensity_grad,
            accept_prob=info.acceptance_rate,
            moved=info.is_accepted,
            diverging=info.is_divergent,
            statistic=info.acceptance_rate,
            carry={
                "momentum": state.momentum,
                "slice": jnp.where(info.is_accepted, state.slice, shifted),
            },
        )
