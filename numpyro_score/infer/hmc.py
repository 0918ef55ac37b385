"""BlackJAX's HMC, to compare the Langevin kernels with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from numpyro.infer import init_to_uniform

from numpyro_score._checks import check_int, check_positive
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._trajectory import MAX_STEPS, TrajectoryKernel
from numpyro_score.infer._transition import Origin, Transition
from numpyro_score.infer.registry import register_kernel


@register_kernel(
    "hmc",
    description="Hamiltonian Monte Carlo with trajectories of one length, for comparison",
    needs=("gradient", "tuning"),
    reference="Neal (2011)",
)
class HMC(TrajectoryKernel):
    r"""Hamiltonian Monte Carlo: BlackJAX's ``hmc`` for ``numpyro.infer.MCMC``, for comparison.

    Tuned and preconditioned like the Langevin kernels of this package, so that a difference is one
    of the algorithms. The arguments are those of NumPyro's ``HMC``.

    **References:** Neal (2011), "MCMC using Hamiltonian dynamics".

    :param num_steps: leapfrog steps of a trajectory; 1 gives MALA.
    :param trajectory_length: length in whitened coordinates, in place of ``num_steps``; divided by
        the step size it gives the number of steps, at most 1,024. The default π / 2 makes the next
        draw of a Gaussian independent; NumPyro's 2π would lead back to where it started, because
        these coordinates are round.

    The other parameters are those of :class:`MALA`.

    >>> from numpyro_score.infer import HMC
    >>> HMC(potential_fn=lambda z: 0.5 * z**2, num_steps=8)
    HMC(<lambda>, diagonal metric)
    """

    two_points = True

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
        num_steps: int | None = None,
        trajectory_length: float | None = None,
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
        if num_steps is not None and trajectory_length is not None:
            raise ValueError("Only one of `num_steps` or `trajectory_length` can be specified.")
        if num_steps is not None:
            check_int(num_steps, "num_steps", 1)
        if trajectory_length is not None:
            check_positive(trajectory_length, "trajectory_length")
        self._num_steps = num_steps
        self._trajectory_length = trajectory_length or math.pi / 2

    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        num_steps: int | Array | None = self._num_steps
        if num_steps is None:
            num_steps = jnp.clip(self._trajectory_length / step_size, 1, MAX_STEPS).astype(int)
        state, info = self._trajectory(rng_key, logdensity_fn, origin, step_size, num_steps)
        return self._report(state, info, info.is_accepted)
