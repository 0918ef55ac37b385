"""ChEES-HMC: trajectories whose length many chains tune together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer import init_to_uniform

from numpyro_score._checks import check_positive
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._schedule import build_schedule
from numpyro_score.infer._trajectory import MAX_STEPS, TrajectoryKernel
from numpyro_score.infer._trajectory_length import (
    init_length,
    jitter,
    restart_average,
    update_length,
)
from numpyro_score.infer._transition import Origin, Transition
from numpyro_score.infer._warmup import AdaptState
from numpyro_score.infer.registry import register_kernel


class _End(NamedTuple):
    """Where a trajectory led from 0, accepted or not, and how fast it was there."""

    position: Array
    velocity: Array


@register_kernel(
    "chees",
    description="HMC with jittered trajectories whose length the chains tune together",
    needs=("gradient", "tuning", "several chains"),
    reference="Hoffman, Radul & Sountsov (2021)",
)
class ChEES(TrajectoryKernel):
    r"""ChEES-HMC: BlackJAX's ``hmc`` with tuned and jittered trajectories, for many chains.

    A step is a trajectory of length h L, for a jitter h that runs evenly through (0, 1). Warm-up
    tunes L by the ChEES criterion, together with the step size and the metric, from all chains of
    ``chain_method="vectorized"``. All chains take the same number of leapfrog steps, so that none
    waits for another, as vectorized chains of NUTS do. ``adapt_state.length_state.length`` is L.

    In a posterior that the metric has made round L comes out near 2; it is longer where the metric
    leaves long directions.

    **References:** Hoffman, Radul & Sountsov (2021), "An adaptive-MCMC scheme for setting
    trajectory lengths in Hamiltonian Monte Carlo".

    :param trajectory_length: L in whitened coordinates: where the search starts, or what is used
        without adaptation. Divided by the step size it gives the number of steps, at most 1,024.
    :param adapt_trajectory_length: whether warm-up tunes it.

    The other parameters are those of :class:`MALA`, without ``adaptation``, which is pooled:
    :class:`MCMC` needs several chains, and ``chain_method="vectorized"``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.infer import ChEES
    >>> kernel = ChEES(potential_fn=lambda z: 0.5 * jnp.sum(z**2))
    >>> options = dict(num_chains=16, chain_method="vectorized", progress_bar=False)
    >>> mcmc = MCMC(kernel, num_warmup=200, num_samples=100, **options)
    >>> mcmc.run(jax.random.key(0), init_params=jnp.zeros((16, 2)))
    >>> mcmc.get_samples().shape
    (1600, 2)
    """

    two_points = True
    always_pooled = True
    read_fields = ("i", "adapt_state")

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
        trajectory_length: float = math.pi / 2,
        adapt_trajectory_length: bool = True,
        init_strategy: Callable[..., Any] = init_to_uniform,
        *,
        max_rank: int | None = None,
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
            adaptation="pooled",
            path=path,
            path_nodes=path_nodes,
        )
        check_positive(trajectory_length, "trajectory_length")
        self._trajectory_length = trajectory_length
        self._adapt_trajectory_length = adapt_trajectory_length

    @property
    def _adapts(self) -> bool:
        return super()._adapts or self._adapt_trajectory_length

    def _initial_adaptation(self, whitening: Any, z: Array) -> AdaptState:
        adapt_state = super()._initial_adaptation(whitening, z)
        return adapt_state._replace(length_state=init_length(self._trajectory_length))

    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        fraction = jitter(origin.carry["i"])
        length = origin.carry["adapt_state"].length_state.length
        num_steps = jnp.clip(jnp.ceil(fraction * length / step_size), 1, MAX_STEPS).astype(int)
        state, info = self._trajectory(rng_key, logdensity_fn, origin, step_size, num_steps)
        # BlackJAX turns the momentum round at the end.
        end = _End(info.proposal.position, -info.proposal.momentum)
        return self._report(state, info, info.is_accepted)._replace(seen=end)

    def _adapt(
        self, i: Array, adapt_state: AdaptState, score: Array, transition: Transition
    ) -> tuple[AdaptState, Array]:
        start = adapt_state.metric_state.displacement
        new, score = super()._adapt(i, adapt_state, score, transition)
        if not self._adapt_mass_matrix:
            moved = new.metric_state._replace(displacement=start + transition.step)
            new = new._replace(metric_state=moved)
        if not self._adapt_trajectory_length:
            return new, score
        assert adapt_state.length_state is not None, "_initial_adaptation"
        end: _End = transition.seen
        length_state = update_length(
            adapt_state.length_state,
            jitter(i),
            start,
            start + end.position,
            end.velocity,
            transition.accept_prob,
        )
        ends = jnp.asarray(build_schedule(self._num_warmup).ends_window)[i]
        length_state = jax.tree.map(
            lambda new, old: jnp.where(ends, new, old), restart_average(length_state), length_state
        )
        return new._replace(length_state=length_state), score
