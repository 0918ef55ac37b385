"""Kernels that see a fresh minibatch at every step: what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer import init_to_uniform
from numpyro.util import is_prng_key

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._keys import split_key
from numpyro_score.infer._minibatch import (
    Control,
    Estimate,
    MinibatchTarget,
    checked_control,
    control_of_values,
    minibatch_target,
    with_rows,
)
from numpyro_score.infer._plates import check_plates
from numpyro_score.infer._step_size import Schedule, StepSize, first_step_size, step_size_at
from numpyro_score.infer._target import Target, model_target
from numpyro_score.infer.adapter import BlackJAXKernel
from numpyro_score.infer.model_checks import ModelError

#: Every so many steps a second minibatch is drawn, to tell how far apart two of them are.
NOISE_EVERY = 20


class Move(NamedTuple):
    """Where a step of one chain led: a flat position, the estimate there, the kernel's fields."""

    z: Array
    estimate: Estimate
    carry: dict[str, Array] = {}  # noqa: RUF012


class StochasticGradientKernel(BlackJAXKernel):
    """Base of the kernels whose gradient comes from a minibatch; see :class:`SGLD`.

    A kernel says in :meth:`_move` how BlackJAX takes a step, in ``state_cls`` which state it has,
    and in :meth:`_noise_ratio` what the noise of the minibatches is compared to. One that remembers
    more than a position between steps says in :meth:`_initial_carry` how that begins.

    The state holds the estimate that the *next* step will use: one gradient a step, and a
    potential energy that belongs to the position beside it.
    """

    bias = "no Metropolis test"
    bias_statistic = "noise_ratio"
    notices_data = True

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        *,
        step_size: float | Schedule,
        control_variate: Literal["map"] | dict[str, Any] | None = None,
        init_strategy: Callable[..., Any] = init_to_uniform,
        potential_fn: None = None,
    ) -> None:
        if potential_fn is not None:
            raise ValueError(
                f"{type(self).__name__} needs a model, whose plates it subsamples; potential_fn "
                "has none. Write the density as a NumPyro model, or use MALA."
            )
        super().__init__(model, None, init_strategy)
        self._step_size = step_size
        self._control_variate = checked_control(control_variate)
        self._first_step_size = first_step_size(step_size)

    @abstractmethod
    def _move(
        self,
        rng_key: Array,
        z: Array,
        state: Any,
        step_size: Array,
        evaluate: Callable[[Array, Array], Estimate],
    ) -> Move:
        """Take one BlackJAX step.

        :param z: flat position; ``state.score`` is the estimate of the gradient there.
        :param evaluate: estimate at a flat position; each key is a fresh minibatch.
        """

    @abstractmethod
    def _noise_ratio(self, variance: Array, step_size: Array) -> Array:
        """Return the noise of the minibatches in units of the noise that the kernel adds."""

    def _initial_carry(self, rng_key: Array, z: Array) -> dict[str, Array]:
        """Return the kernel's own fields at the start of a chain, or after it stood still."""
        return {}

    @property
    def model(self) -> Callable[..., Any] | None:
        """The NumPyro model for those who run it without a random key, such as ArviZ.

        Its plates take their first rows, so that the log likelihood of ArviZ is that of those rows.
        """
        return None if self._model is None else with_rows(self._model)

    # -- set-up ------------------------------------------------------------------------------

    def _build_target(
        self, rng_key: Array, init_params: PyTree, model_args: tuple, model_kwargs: dict[str, Any]
    ) -> tuple[Target, PyTree]:
        assert self._model is not None, "check_target"
        model, name = with_rows(self._model), type(self).__name__
        try:
            target, z = model_target(
                rng_key,
                model,
                self._init_strategy,
                init_params,
                model_args,
                model_kwargs,
                lambda trace: check_plates(trace, name),
            )
        except jax.errors.TracerArrayConversionError as error:
            raise ModelError(
                "The model gives NumPy an array that is not known yet. Perhaps it takes the rows "
                "of a NumPy array: use jnp.asarray(y)[rows] or numpyro.subsample(y, event_dim=...)."
            ) from error

        def of_arguments(args: tuple, kwargs: dict[str, Any] | None) -> Any:
            return minibatch_target(target, model, args, kwargs)

        return target._replace(potential_fn=of_arguments), z

    def _start(self, rng_key: Array, z: PyTree, potential_fn: Any) -> Any:
        target: MinibatchTarget = potential_fn
        several = not is_prng_key(rng_key)
        one = jax.tree.map(lambda x: x[0], z) if several else z
        control = self._initial_control(target, one)
        step_size = step_size_at(self._step_size, jnp.zeros((), int))

        def start(rng_key: Array, z: PyTree) -> Any:
            rng_key, start_key = jax.random.split(rng_key)
            first_key, second_key, carry_key = jax.random.split(start_key, 3)
            flat, unravel = ravel_pytree(z)
            estimate = target.estimator(unravel, control)
            here = estimate(flat, target.draw(first_key))
            other = estimate(flat, target.draw(second_key))
            variance = _variance(here, other)
            return self.state_cls(
                i=jnp.zeros((), int),
                z=z,
                potential_energy=-here.logdensity,
                score=here.score,
                gradient_variance=variance,
                noise_ratio=jnp.max(self._noise_ratio(variance, step_size)),
                diverging=jnp.zeros((), bool),
                adapt_state=StepSize(step_size),
                control=control,
                rng_key=rng_key,
                **self._initial_carry(carry_key, flat),
            )

        if not several:
            return start(rng_key, z)
        return jax.vmap(start, out_axes=self._axes())(rng_key, z)

    def _initial_control(self, target: MinibatchTarget, z: PyTree) -> Control | None:
        if self._control_variate is None:
            return None
        flat, unravel = ravel_pytree(z)
        if isinstance(self._control_variate, str):
            centre = target.find_mode(unravel, flat)
        else:
            centre = control_of_values(target, self._control_variate, z)
        return target.control_at(unravel, centre)

    def _axes(self) -> Any:
        # The centre is that of the data, so all chains have one.
        return super()._axes()._replace(control=None)

    def _check_state(self, state: Any) -> None:
        leaves = jax.tree.leaves(state.control)
        if not all(np.isfinite(leaf).all() for leaf in leaves if is_concrete(leaf)):
            raise RuntimeError(
                "The control variates are not finite: at their centre the log density of all data, "
                "or its gradient, is NaN or infinite. Give values where it is finite, "
                "control_variate={site: value}, or start the search for the mode elsewhere "
                "(init_strategy)."
            )

    # -- one step ----------------------------------------------------------------------------

    def _advance(self, state: Any, potential_fn: Any) -> Any:
        target: MinibatchTarget = potential_fn
        since = state.i - jnp.where(state.i < self._num_warmup, 0, self._num_warmup)

        if state.control is not None:
            control = target.renewed(_unravel(state), state.control, since % NOISE_EVERY == 0)
            state = state._replace(control=control)

        def step(state: Any) -> Any:
            return self._step(state, target, since)

        if is_prng_key(state.rng_key):
            return step(state)
        axes = self._axes()
        return jax.vmap(step, in_axes=(axes,), out_axes=axes)(state)

    def _step(self, state: Any, target: MinibatchTarget, since: Array) -> Any:
        rng_key, step_key = jax.random.split(state.rng_key)
        move_key, other_key, carry_key = jax.random.split(step_key, 3)
        step_size = step_size_at(self._step_size, state.i)
        z, unravel = ravel_pytree(state.z)
        estimate = target.estimator(unravel, state.control)

        def evaluate(rng_key: Array, z: Array) -> Estimate:
            return estimate(z, target.draw(rng_key))

        move = self._move(move_key, z, state, step_size, evaluate)
        finite = _all_finite(move.z, *move.estimate, *move.carry.values())
        stay = Move(
            z,
            Estimate(-state.potential_energy, state.score),
            self._initial_carry(carry_key, z),
        )
        move = jax.tree.map(lambda new, old: jnp.where(finite, new, old), move, stay)

        def compare(mean: Array) -> Array:
            variance = _variance(move.estimate, evaluate(other_key, move.z))
            n = since // NOISE_EVERY + 1
            return jnp.where(jnp.isfinite(variance), mean + (variance - mean) / n, mean)

        # Not a statistic of every step: it would double the price of one.
        variance = jax.lax.cond(
            since % NOISE_EVERY == 0, compare, lambda mean: mean, state.gradient_variance
        )
        return state._replace(
            i=state.i + 1,
            z=unravel(move.z),
            potential_energy=-move.estimate.logdensity,
            score=move.estimate.score,
            gradient_variance=variance,
            noise_ratio=jnp.max(self._noise_ratio(variance, step_size)),
            diverging=~finite,
            adapt_state=StepSize(step_size),
            rng_key=rng_key,
            **move.carry,
        )

    def refresh(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return ``state`` with estimates of its position under new arguments.

        Control variates keep their centre, and learn what the new data say there.
        """
        target: Any = self._initialized().potential_fn(model_args, model_kwargs)
        control = state.control
        if control is not None:
            control = target.control_at(_unravel(state), control.centre)
        rng_keys, draw_keys = split_key(state.rng_key)

        def evaluate(rng_key: Array, z: PyTree) -> Estimate:
            flat, unravel = ravel_pytree(z)
            return target.estimator(unravel, control)(flat, target.draw(rng_key))

        if not is_prng_key(draw_keys):
            evaluate = jax.vmap(evaluate)
        logdensity, score = evaluate(draw_keys, state.z)
        return state._replace(
            potential_energy=-logdensity, score=score, control=control, rng_key=rng_keys
        )

    def get_diagnostics_str(self, state: Any) -> str:
        """Return what the progress bar says of one chain."""
        return (
            f"step size {state.adapt_state.step_size:.2e}. biased: {self.bias}, "
            f"minibatch noise ratio={state.noise_ratio:.2f}"
        )

    def _describe(self) -> list[str]:
        return [] if self._control_variate is None else ["control variates"]


def _unravel(state: Any) -> Callable[[Array], PyTree]:
    """Return the map from a flat position of one chain to a pytree."""
    several = state.score.ndim == 2
    return ravel_pytree(jax.tree.map(lambda x: x[0], state.z) if several else state.z)[1]


def _variance(one: Estimate, other: Estimate) -> Array:
    """Return the unbiased estimate of a variance that two independent draws give."""
    return 0.5 * (one.score - other.score) ** 2


def _all_finite(*arrays: Array) -> Array:
    return jnp.stack([jnp.isfinite(x).all() for x in arrays]).all()
