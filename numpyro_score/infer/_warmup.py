"""Step size and metric during warm-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.adaptation.step_size import (
    DualAveragingAdaptationState,
    dual_averaging_adaptation,
)
from blackjax.mcmc.metrics import LowRankInverseMassMatrix

from numpyro_score._typing import Array
from numpyro_score.infer._low_rank import (
    LowRankWindow,
    finish_window,
    init_window,
    update_window,
    window_strides,
)
from numpyro_score.infer._metric import (
    MetricState,
    finish_metric,
    finish_metric_of_draws,
    init_metric,
    restart_metric,
    turn_score,
    update_metric,
)
from numpyro_score.infer._schedule import Schedule
from numpyro_score.infer._trajectory_length import LengthState
from numpyro_score.infer._whitening import DenseWhitening, LowRankWhitening, Whitening

# A chain that never moves counts for this in a harmonic mean: in a pool of 1,000 it halves it.
_LEAST_ACCEPTANCE = 1e-3


class AdaptState(NamedTuple):
    """What warm-up tunes, and what it remembers while it does.

    - **step_size** - ε of the Langevin step in whitened coordinates.
    - **whitening** - the metric L Lᵀ by its factor L: diagonal, dense or of low rank. Parameters
      are ordered as ``ravel_pytree`` orders the unconstrained sites: by name.
    - **step_size_state**, **metric_state** - memory of dual averaging, and of the window.
    - **length_state** - the trajectory length and the memory of its search, of a kernel that tunes
      it; None of others.
    """

    step_size: Array
    whitening: Whitening
    step_size_state: DualAveragingAdaptationState
    metric_state: MetricState | LowRankWindow
    length_state: LengthState | None = None

    @property
    def inverse_mass_matrix(self) -> Array | LowRankInverseMassMatrix:
        """The metric, an estimate of the posterior covariance: ``(d,)`` or ``(d, d)``.

        One of low rank comes as BlackJAX's ``LowRankInverseMassMatrix``.
        """
        return self.whitening.covariance()

    def for_each_chain(self, num_chains: int) -> AdaptState:
        """Return what a pool shares, with a step size for each chain, as ArviZ reads it."""
        return self._replace(step_size=jnp.broadcast_to(self.step_size, (num_chains,)))

    def shared(self) -> AdaptState:
        """Return it with one step size for the pool: what depends on it alone is computed once."""
        return self._replace(step_size=self.step_size[0])


class Warmup(NamedTuple):
    """How a group of chains adapts together; a chain on its own is a group of one.

    - **init** - ``(whitening, z) -> AdaptState`` for flat positions ``(chains, d)``.
    - **update** - ``(i, state, step, score, accept_prob, moved) -> (AdaptState, score)``, each
      with a leading axis of chains; the whitened score changes where the whitening does.
    """

    init: Callable[..., AdaptState]
    update: Callable[..., tuple[AdaptState, Array]]


def build_warmup(
    schedule: Schedule,
    *,
    step_size: float,
    adapt_step_size: bool,
    adapt_mass_matrix: bool,
    target_accept_prob: float,
    use_scores: bool = True,
    wait_for_all: bool = False,
) -> Warmup:
    """Return the warm-up of a group of chains.

    :param schedule: when windows end.
    :param step_size: where the search for a step size starts.
    :param use_scores: whether a metric is learned from draws and scores, or from draws alone.
    :param wait_for_all: whether steps are small enough for the slowest of several chains until the
        last window has ended: a chain that is still far out is not left there by a step size that
        suits the others, and does not spoil their metric.
    """
    average_init, average_update, average_final = dual_averaging_adaptation(target_accept_prob)

    def start_average(value: Array) -> DualAveragingAdaptationState:
        return jax.tree.map(jnp.asarray, average_init(value))

    def init(whitening: Whitening, z: Array) -> AdaptState:
        value = jnp.asarray(step_size, jnp.result_type(float))
        displacement = whitening.whiten(z - z.mean(0))
        metric: MetricState | LowRankWindow
        if isinstance(whitening, LowRankWhitening):
            metric = init_window(displacement, len(whitening.stretch))
        else:
            metric = init_metric(displacement, isinstance(whitening, DenseWhitening))
        return AdaptState(value, whitening, start_average(value), metric)

    def stride(i: Array, window: LowRankWindow) -> Array:
        return jnp.asarray(window_strides(schedule, len(window.draws)))[i]

    def end_window(i: Array, state: AdaptState, score: Array) -> tuple[AdaptState, Array]:
        whitening, metric = state.whitening, state.metric_state
        if isinstance(whitening, LowRankWhitening):
            assert isinstance(metric, LowRankWindow), "init"
            whitening, metric, score = finish_window(metric, whitening, score, stride(i, metric))
        else:
            assert isinstance(metric, MetricState), "init"
            finish = finish_metric if use_scores else finish_metric_of_draws
            factor = finish(metric, dense=isinstance(whitening, DenseWhitening))
            whitening, metric = whitening.compose(factor), restart_metric(metric, factor)
            score = turn_score(score, factor)
        state = state._replace(whitening=whitening, metric_state=metric)
        if adapt_step_size:
            value = average_final(state.step_size_state)
            state = state._replace(step_size=value, step_size_state=start_average(value))
        return state, score

    def update(
        i: Array, state: AdaptState, step: Array, score: Array, accept_prob: Array, moved: Array
    ) -> tuple[AdaptState, Array]:
        if adapt_step_size:
            accepted = accept_prob.mean()
            if wait_for_all and len(accept_prob) > 1:
                harmonic = 1 / jnp.mean(1 / jnp.maximum(accept_prob, _LEAST_ACCEPTANCE))
                accepted = jnp.where(i < schedule.last_window, harmonic, accepted)
            average = average_update(state.step_size_state, accepted)
            last = i == schedule.num_warmup - 1
            value = jnp.where(last, average_final(average), jnp.exp(average.log_step_size))
            state = state._replace(step_size=value, step_size_state=average)
        if adapt_mass_matrix:
            metric = state.metric_state
            if isinstance(metric, LowRankWindow):
                metric = update_window(metric, step, score, moved, stride(i, metric))
            else:
                metric = update_metric(metric, step, score, moved)
            state = state._replace(metric_state=metric)
            ends = jnp.asarray(schedule.ends_window)[i]
            state, score = jax.lax.cond(ends, end_window, lambda i, *rest: rest, i, state, score)
        return state, score

    return Warmup(init, update)
