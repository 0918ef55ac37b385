"""BlackJAX kernels in coordinates in which the target is round, tuned during warm-up.

A step is taken in coordinates v in which the chain is at the origin and the metric is the
identity: z + L v for a metric L Lᵀ. These kernels move relative to where they are, so an
unmodified BlackJAX kernel started at v = 0 is the preconditioned kernel. A rejected proposal
leaves z as it was, to the bit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from numpyro.infer import init_to_uniform
from numpyro.util import identity, is_prng_key

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._arguments import check_tuning, initial_whitening
from numpyro_score.infer._keys import split_key
from numpyro_score.infer._paths import choose_path
from numpyro_score.infer._schedule import build_schedule, check_window
from numpyro_score.infer._transition import Origin, StepParts, Transition
from numpyro_score.infer._warmup import AdaptState, Warmup, build_warmup
from numpyro_score.infer.adapter import BlackJAXKernel


class PreconditionedKernel(BlackJAXKernel):
    """Base of the kernels whose step size and metric are tuned step by step; see :class:`MALA`.

    A kernel says in :meth:`_transition` how BlackJAX takes a step from the origin, in ``state_cls``
    which state it has, and in ``statistic`` which field of it reports each step. One that remembers
    more than position, log density and score between steps says what in :meth:`_initial_carry`.
    """

    statistic: ClassVar[str] = "accept_prob"
    #: The field that holds the mean of :meth:`_averaged` since warm-up, or sampling, began.
    mean_field: ClassVar[str] = "mean_accept_prob"
    carry_fields: ClassVar[tuple[str, ...]] = ()
    #: Fields of the state that a step looks at, and does not change.
    read_fields: ClassVar[tuple[str, ...]] = ()
    #: Whether the log density is evaluated once a step, at the proposal.
    one_evaluation: ClassVar[bool] = True
    #: Whether the state has a score, from which the metric is learned together with the draws.
    has_score: ClassVar[bool] = True
    #: Whether it tests its position against one proposal, and ``path="local"`` is right for it.
    two_points: ClassVar[bool] = False
    #: Whether it cannot tune one chain by itself.
    always_pooled: ClassVar[bool] = False
    #: Whether a pool waits for its slowest chain. The acceptance of a single Langevin proposal says
    #: too little of a chain for that.
    wait_for_all: ClassVar[bool] = False

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[PyTree], Array] | None = None,
        step_size: float = 0.1,
        inverse_mass_matrix: Array | None = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool = False,
        target_accept_prob: float = 0.574,
        init_strategy: Callable[..., Any] = init_to_uniform,
        *,
        max_rank: int | None = None,
        adaptation: Literal["per-chain", "pooled"] = "per-chain",
        path: Literal["anchored", "local"] = "anchored",
        path_nodes: int | None = None,
    ) -> None:
        super().__init__(model, potential_fn, init_strategy)
        check_tuning(
            step_size, inverse_mass_matrix, dense_mass, max_rank, target_accept_prob, adaptation
        )
        self._step_size = step_size
        self._inverse_mass_matrix = inverse_mass_matrix
        self._adapt_step_size = adapt_step_size
        self._adapt_mass_matrix = adapt_mass_matrix
        self._dense_mass = dense_mass
        self._max_rank = max_rank
        self._target_accept_prob = target_accept_prob
        self._pooled = adaptation == "pooled"
        self._path = choose_path(path, path_nodes, self.two_points, type(self).__name__)

    @abstractmethod
    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        """Take one BlackJAX step from the origin, where log density and score are known."""

    def _initial_carry(self, rng_key: Array, score: Array) -> dict[str, Any]:
        """Return the ``carry_fields`` of one chain at its start."""
        return {}

    def _averaged(self, transition: Transition) -> Array:
        """Return what ``mean_field`` is the mean of."""
        return transition.statistic

    # -- set-up ------------------------------------------------------------------------------

    def _prepare(self, rng_key: Array) -> None:
        if self._pooled and is_prng_key(rng_key):
            how = type(self).__name__ if self.always_pooled else 'adaptation="pooled"'
            other = "" if self.always_pooled else ', or adaptation="per-chain"'
            raise ValueError(
                f"{how} tunes several chains together, but this kernel was given one chain: use "
                f'MCMC(..., num_chains=4, chain_method="vectorized") or more chains{other}.'
            )

    def _build_warmup(self) -> Warmup:
        return build_warmup(
            build_schedule(self._num_warmup),
            step_size=self._step_size,
            adapt_step_size=self._adapt_step_size,
            adapt_mass_matrix=self._adapt_mass_matrix,
            target_accept_prob=self._target_accept_prob,
            use_scores=self.has_score,
            wait_for_all=self.wait_for_all,
        )

    def _start(self, rng_key: Array, z: PyTree, potential_fn: Callable[[PyTree], Array]) -> Any:
        several = not is_prng_key(rng_key)
        vmap = jax.vmap if several else identity
        fields, gradient = vmap(lambda z: self._path.evaluate(potential_fn, z))(z)
        energy = fields["potential_energy"]
        flat = vmap(lambda z: ravel_pytree(z)[0])(z)
        whitening = initial_whitening(
            self._inverse_mass_matrix, gradient.shape[-1], self._dense_mass, self._max_rank
        )
        score = -whitening.whiten_gradient(gradient)
        carry: dict[str, Any] = {}
        if self.carry_fields:
            rng_key, carry_key = split_key(rng_key)
            carry = vmap(self._initial_carry)(carry_key, score)
        return self.state_cls(
            i=jnp.zeros((), int),
            z=z,
            score=score,
            diverging=jnp.zeros(energy.shape, bool),
            adapt_state=self._initial_adaptation(whitening, flat),
            rng_key=rng_key,
            **{self.statistic: jnp.zeros_like(energy)},
            **{self.mean_field: jnp.zeros_like(energy)},
            **fields,
            **carry,
        )

    def _initial_adaptation(self, whitening: Any, z: Array) -> AdaptState:
        init = self._build_warmup().init
        if self._pooled:
            return init(whitening, z).for_each_chain(len(z))
        if z.ndim == 1:
            return init(whitening, z[None])
        return jax.vmap(lambda z: init(whitening, z[None]))(z)

    def _check_state(self, state: Any) -> None:
        diagonal = not self._dense_mass and self._max_rank is None
        if diagonal or not self._adapt_mass_matrix:
            return
        directions = state.score.shape[-1]
        if self._max_rank is not None:
            directions = min(directions, 2 * self._max_rank)
        num_chains = len(state.score) if self._pooled else 1
        schedule = build_schedule(self._num_warmup)
        check_window(schedule, directions, self._target_accept_prob, num_chains)

    def _axes(self) -> Any:
        axes = super()._axes()
        return axes._replace(adapt_state=None) if self._pooled else axes

    def by_chain(self, state: Any, num_chains: int) -> Any:
        """Return the state of a batch of chains with what they share repeated for each of them."""
        if self._pooled:
            state = state._replace(adapt_state=state.adapt_state.shared())
        return super().by_chain(state, num_chains)

    @property
    def _adapts(self) -> bool:
        return self._adapt_step_size or self._adapt_mass_matrix

    # -- one step ----------------------------------------------------------------------------

    def parts(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> StepParts:
        """Return :meth:`sample` taken apart."""
        potential_fn = self._stepped_on(model_args, model_kwargs)
        num_warmup = self._num_warmup if self._adapts else 0
        return StepParts(lambda state: self._move(state, potential_fn), self._learn, num_warmup)

    def _advance(self, state: Any, potential_fn: Callable[[PyTree], Array]) -> Any:
        i = state.i
        state, transition = self._move(state, potential_fn)
        if self._num_warmup == 0 or not self._adapts:
            return state
        return self._learn(i, state, transition)

    def _move(self, state: Any, potential_fn: Callable[[PyTree], Array]) -> tuple[Any, Transition]:
        """Return the state after a step from which nothing is learned, and the step."""
        in_warmup = state.i < self._num_warmup

        def step(state: Any) -> tuple[Any, Transition]:
            return self._step(state, potential_fn, in_warmup)

        if not is_prng_key(state.rng_key):
            axes = self._axes()
            step = jax.vmap(step, in_axes=(axes,), out_axes=(axes, 0))
        adapt_state = state.adapt_state.shared() if self._pooled else state.adapt_state
        new, transition = step(state._replace(adapt_state=adapt_state))
        # As it came: what a loop does not change, the compiler computes once.
        return new._replace(adapt_state=state.adapt_state), transition

    def _learn(self, i: Array, state: Any, transition: Transition) -> Any:
        """Return the state, adapted by its ``i``-th step where that belongs to the warm-up."""
        adapt_state, score = jax.lax.cond(
            i < self._num_warmup,
            lambda *args: self._adapt(i, *args),
            lambda *args: args[:2],
            state.adapt_state,
            state.score,
            transition,
        )
        return state._replace(adapt_state=adapt_state, score=score)

    def _step(
        self, state: Any, potential_fn: Callable[[PyTree], Array], in_warmup: Array
    ) -> tuple[Any, Transition]:
        rng_key, step_key = jax.random.split(state.rng_key)
        whitening, step_size = state.adapt_state.whitening, state.adapt_state.step_size
        z, unravel = ravel_pytree(state.z)
        place = whitening.placer(z, self.one_evaluation)

        log_density = self._path.leave(potential_fn, state, self.one_evaluation)

        def logdensity_fn(v: Array) -> Array:
            return log_density(unravel(place(v)))

        carry = {field: getattr(state, field) for field in self.carry_fields + self.read_fields}
        origin = Origin(-state.potential_energy, state.score, carry)
        transition = self._transition(step_key, logdensity_fn, origin, step_size, in_warmup)
        moved_to = unravel(place.settle(transition.step, transition.moved))
        n = 1 + jnp.where(in_warmup, state.i, state.i - self._num_warmup)
        mean = getattr(state, self.mean_field)
        averaged = self._averaged(transition)
        new = state._replace(
            i=state.i + 1,
            z=moved_to,
            score=transition.score,
            diverging=transition.diverging,
            rng_key=rng_key,
            **{self.statistic: transition.statistic},
            **{self.mean_field: mean + (averaged - mean) / n},
            **log_density.settle(transition.logdensity, transition.moved, moved_to),
            **transition.carry,
        )
        return new, transition

    def _adapt(
        self, i: Array, adapt_state: AdaptState, score: Array, transition: Transition
    ) -> tuple[AdaptState, Array]:
        update = self._build_warmup().update
        seen = (transition.step, score, transition.accept_prob, transition.moved)

        def adapt_together(adapt_state: AdaptState, seen: Any) -> tuple[AdaptState, Array]:
            return update(i, adapt_state, *seen)

        def adapt_alone(adapt_state: AdaptState, seen: Any) -> tuple[AdaptState, Array]:
            adapt_state, score = adapt_together(adapt_state, jax.tree.map(lambda x: x[None], seen))
            return adapt_state, score[0]

        if self._pooled:
            adapt_state, score = adapt_together(adapt_state.shared(), seen)
            return adapt_state.for_each_chain(len(score)), score
        if score.ndim == 1:
            return adapt_alone(adapt_state, seen)
        return jax.vmap(adapt_alone)(adapt_state, seen)

    def _score(self, state: Any, gradient: Array) -> Array:
        return -state.adapt_state.whitening.whiten_gradient(gradient)

    def get_diagnostics_str(self, state: Any) -> str:
        """Return what the progress bar says of one chain."""
        return (
            f"step size {state.adapt_state.step_size:.2e}. acc. prob={state.mean_accept_prob:.2f}"
        )

    def _describe(self) -> list[str]:
        metric = "dense metric" if self._dense_mass else "diagonal metric"
        if self._max_rank is not None:
            metric = f"metric of rank {self._max_rank}"
        return [metric, "pooled"] if self._pooled else [metric]
