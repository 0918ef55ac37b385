"""Kernels that BlackJAX tunes as a whole, before the first draw."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from blackjax.adaptation.mclmc_adaptation import MCLMCAdaptationState
from jax.flatten_util import ravel_pytree
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.util import is_prng_key

from numpyro_score._checks import check_positive
from numpyro_score._threefry import restore_keys, unroll_keys
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._arguments import check_variances
from numpyro_score.infer._burn_in import burn_in
from numpyro_score.infer._keys import split_key
from numpyro_score.infer._levels import LevelledModel
from numpyro_score.infer._paths import choose_path
from numpyro_score.infer._target import Target, flat_value_and_grad
from numpyro_score.infer.adapter import BlackJAXKernel

LogDensity: TypeAlias = Callable[[Array], Array]

# Fractions of the warm-up after which a chain whose target moves is tuned anew. The last is past
# that of `ReplicaExchange`, and leaves a quarter for what else is tuned.
_RETUNE = (0.0, 0.125, 0.25, 0.5, 0.75)


class TrajectoryTuning(NamedTuple):
    """What BlackJAX tunes.

    - **step_size** - of the integrator.
    - **L** - length after which the momentum has forgotten its direction.
    - **inverse_mass_matrix** - variances of the parameters, ``(d,)``.
    """

    step_size: Array
    L: Array
    inverse_mass_matrix: Array


class MicrocanonicalKernel(BlackJAXKernel):
    """Base of :class:`MCLMC` and :class:`AdjustedMCLMC`.

    BlackJAX tunes these in one go, not step by step: initialization spends the budget of the whole
    warm-up, and the steps of warm-up pass at no cost. The first third of it is a run of MALA, which
    finds the posterior from afar and its scales: a particle of constant speed comes no nearer in a
    step than its step size, however steep the way.

    Where the target moves during warm-up, with the other blocks of ``Gibbs`` or the levels of
    :class:`ReplicaExchange`, what was tuned at the start is soon wrong: there the steps of warm-up
    are steps, and the whole tuning is run at five of them.

    A chain is handed to BlackJAX relative to where it is, so that the variances that the tuning
    takes from ``E[x²] - E[x]²`` do not drown in a float32 far from the origin.

    Tuning is a run of many steps from one place, so that it always follows the anchored path.
    """

    #: Whether it tests its position against one proposal, and ``path="local"`` is right for it.
    two_points: ClassVar[bool] = False

    def __init__(
        self,
        model: Callable[..., Any] | None,
        potential_fn: Callable[[PyTree], Array] | None,
        step_size: float | None,
        L: float | None,
        inverse_mass_matrix: Array | None,
        adapt_step_size: bool,
        adapt_mass_matrix: bool,
        init_strategy: Callable[..., Any],
        path: str = "anchored",
        path_nodes: int | None = None,
    ) -> None:
        super().__init__(model, potential_fn, init_strategy)
        for value, name in ((step_size, "step_size"), (L, "L")):
            if value is not None:
                check_positive(value, name)
        check_variances(inverse_mass_matrix)
        self._step_size = step_size
        self._L = L
        self._inverse_mass_matrix = inverse_mass_matrix
        self._adapt_step_size = adapt_step_size
        self._adapt_mass_matrix = adapt_mass_matrix
        self._path = choose_path(path, path_nodes, self.two_points, type(self).__name__)
        self._target_moves = False

    @abstractmethod
    def _initial_fields(self, rng_key: Array, score: Array) -> dict[str, Array]:
        """Return the fields that only this kernel's state has, of one chain at its start."""

    @abstractmethod
    def _chain(self, rng_key: Array, state: Any) -> Any:
        """Return BlackJAX's state of one chain, at the origin."""

    @abstractmethod
    def _transition(
        self, rng_key: Array, chain: Any, logdensity_fn: LogDensity, state: Any, n: Array
    ) -> tuple[Any, dict[str, Array]]:
        """Return BlackJAX's state after one step, and fields to report.

        :param n: number of steps since sampling began, this one included.
        """

    @abstractmethod
    def _tune(
        self, rng_key: Array, chain: Any, logdensity_fn: LogDensity, tuning: MCLMCAdaptationState
    ) -> tuple[Any, MCLMCAdaptationState]:
        """Let BlackJAX tune, for about as many steps as warm-up has; return where it ends."""

    # -- set-up ------------------------------------------------------------------------------

    def _build_target(
        self, rng_key: Array, init_params: PyTree, model_args: tuple, model_kwargs: dict[str, Any]
    ) -> tuple[Target, PyTree]:
        siblings = model_kwargs.get(GIBBS_SITES_KWARG)
        self._target_moves = bool(siblings) or isinstance(self._model, LevelledModel)
        return super()._build_target(rng_key, init_params, model_args, model_kwargs)

    def _start(self, rng_key: Array, z: PyTree, potential_fn: Callable[[PyTree], Array]) -> Any:
        rng_key, start_key = split_key(rng_key)

        def start(rng_key: Array, start_key: Array, z: PyTree) -> Any:
            energy, gradient = flat_value_and_grad(potential_fn, z)
            state = self.state_cls(
                i=jnp.zeros((), int),
                z=z,
                potential_energy=energy,
                score=-gradient,
                diverging=jnp.zeros((), bool),
                adapt_state=self._initial_tuning(gradient.size),
                rng_key=rng_key,
                **self._initial_fields(start_key, -gradient),
            )
            if self._tunes and not self._target_moves:
                state = self._tuned(state, potential_fn)
            state = state._replace(**self._path.enter(potential_fn, state.z))
            # A start that was not finite is told, wherever tuning has led.
            return state._replace(
                potential_energy=jnp.where(jnp.isfinite(energy), state.potential_energy, energy)
            )

        if not is_prng_key(rng_key):
            start = jax.vmap(start, out_axes=self._axes())
        return start(rng_key, start_key, z)

    def _initial_tuning(self, size: int) -> TrajectoryTuning:
        if size < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 unconstrained parameters, because its "
                f"momentum is a direction in space, and this model has {size}: use MALA."
            )
        metric = self._inverse_mass_matrix
        if metric is not None and len(metric) != size:
            raise ValueError(
                f"inverse_mass_matrix is for {len(metric)} parameters, but the model has {size} "
                "unconstrained ones (sites in alphabetical order)."
            )
        # BlackJAX's own defaults.
        step_size = size**0.5 / 4 if self._step_size is None else self._step_size
        length = size**0.5 if self._L is None else self._L
        metric = jnp.ones(size) if metric is None else metric
        return TrajectoryTuning(*(jnp.asarray(x, float) for x in (step_size, length, metric)))

    # -- one step ----------------------------------------------------------------------------

    @property
    def _tunes(self) -> bool:
        return self._num_warmup > 0 and self._adapt_step_size

    def _advance(self, state: Any, potential_fn: Callable[[PyTree], Array]) -> Any:
        def step(state: Any) -> Any:
            return self._step(state, potential_fn)

        def tune(state: Any) -> Any:
            state = _with_plain_key(lambda state: self._tuned(state, potential_fn), state)
            return state._replace(**self._path.enter(potential_fn, state.z))

        if not is_prng_key(state.rng_key):
            axes = self._axes()
            step, tune = (jax.vmap(fn, in_axes=(axes,), out_axes=axes) for fn in (step, tune))
        if not self._tunes:
            return step(state)
        if self._target_moves:
            due = jnp.isin(state.i, jnp.array([int(x * self._num_warmup) for x in _RETUNE]))
            # No branch: where the user maps Gibbs over chains, both sides would run at each step.
            state = jax.lax.fori_loop(0, due.astype(int), lambda _, state: tune(state), state)
            return step(state)
        in_warmup = state.i < self._num_warmup
        return jax.lax.cond(in_warmup, lambda s: s._replace(i=s.i + 1), step, state)

    def _step(self, state: Any, potential_fn: Callable[[PyTree], Array]) -> Any:
        rng_key, chain_key, step_key = jax.random.split(state.rng_key, 3)
        log_density = self._path.leave(potential_fn, state, remember=False)
        logdensity_fn, place = _relative_to(state.z, log_density)
        chain = self._chain(chain_key, state)
        n = 1 + jnp.where(state.i < self._num_warmup, state.i, state.i - self._num_warmup)
        chain, report = self._transition(step_key, chain, logdensity_fn, state, n)
        state = self._settled(state._replace(i=state.i + 1), chain, place, rng_key)
        moved = jnp.any(chain.position != 0)
        return state._replace(**log_density.settle(chain.logdensity, moved, state.z), **report)

    @property
    def _num_tuning(self) -> int:
        return self._num_warmup - self._num_warmup // 3

    def _tuned(self, state: Any, potential_fn: Callable[[PyTree], Array]) -> Any:
        # From nothing that was tuned before: BlackJAX lets a step size grow by little.
        state = state._replace(adapt_state=self._initial_tuning(state.score.size))
        return self._tune_at_once(self._burn_in(state, potential_fn), potential_fn)

    def _burn_in(self, state: Any, potential_fn: Callable[[PyTree], Array]) -> Any:
        rng_key, burn_in_key = jax.random.split(state.rng_key)
        num_steps = self._num_warmup - self._num_tuning
        z, variances = burn_in(
            burn_in_key, state.z, potential_fn, self._inverse_mass_matrix, num_steps
        )
        energy, gradient = flat_value_and_grad(potential_fn, z)
        state = state._replace(z=z, potential_energy=energy, score=-gradient, rng_key=rng_key)
        if not self._adapt_mass_matrix:
            return state
        return state._replace(adapt_state=state.adapt_state._replace(inverse_mass_matrix=variances))

    def _tune_at_once(self, state: Any, potential_fn: Callable[[PyTree], Array]) -> Any:
        rng_key, chain_key, tune_key = jax.random.split(state.rng_key, 3)
        logdensity_fn, place = _relative_to(state.z, lambda z: -potential_fn(z))
        initial = state.adapt_state
        chain, tuned = self._tune(
            tune_key,
            self._chain(chain_key, state),
            logdensity_fn,
            MCLMCAdaptationState(initial.L, initial.step_size, initial.inverse_mass_matrix),
        )
        tuning = TrajectoryTuning(tuned.step_size, tuned.L, tuned.inverse_mass_matrix)
        tuning = jax.tree.map(_unless_unsound, tuning, initial)
        return self._settled(state, chain, place, rng_key)._replace(adapt_state=tuning)

    def _settled(self, state: Any, chain: Any, place: Callable[[Array], PyTree], key: Array) -> Any:
        return state._replace(
            z=place(chain.position),
            potential_energy=-chain.logdensity,
            score=chain.logdensity_grad,
            rng_key=key,
        )

    def _describe(self) -> list[str]:
        return ["diagonal metric"]


def _with_plain_key(fn: Callable[[Any], Any], state: Any) -> Any:
    """Return ``fn(state)`` by code that compiles in half the time, and draws the same numbers."""
    plain = jax.random.key(0, impl="threefry2x32")
    if state.rng_key.dtype != unroll_keys(plain).dtype:
        return fn(state)
    state = fn(state._replace(rng_key=restore_keys(state.rng_key, plain)))
    return state._replace(rng_key=unroll_keys(state.rng_key))


def _relative_to(
    z: PyTree, log_density: Callable[[PyTree], Array]
) -> tuple[LogDensity, Callable[[Array], PyTree]]:
    """Return a log density as a function of the displacement from ``z``, and where that is."""
    flat, unravel = ravel_pytree(z)

    def place(v: Array) -> PyTree:
        return unravel(flat + v)

    return lambda v: log_density(place(v)), place


def _unless_unsound(tuned: Array, initial: Array) -> Array:
    return jnp.where(jnp.isfinite(tuned) & (tuned > 0), tuned, initial)
