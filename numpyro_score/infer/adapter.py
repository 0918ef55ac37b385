"""BlackJAX kernels in ``numpyro.infer.MCMC``: what all of them share.

A step is taken in coordinates v in which the chain is at the origin and the metric is the
identity: z + L v for a metric L Lᵀ. A Langevin kernel moves relative to where it is, so an
unmodified BlackJAX kernel started at v = 0 is the preconditioned kernel. A rejected proposal
leaves z as it was, to the bit.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from numpyro.infer import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import identity, is_prng_key

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._arguments import check_arguments, initial_whitening
from numpyro_score.infer._initialization import check_start
from numpyro_score.infer._schedule import build_schedule, check_window
from numpyro_score.infer._target import Target, flat_value_and_grad, model_target, potential_target
from numpyro_score.infer._transition import Transition
from numpyro_score.infer._warmup import AdaptState, Warmup, build_warmup
from numpyro_score.infer._whitening import Whitening

_CLOSURES = ("_sample_fn", "_target", "_warmup")


class BlackJAXKernel(MCMCKernel):
    """Base of the kernels that run one BlackJAX transition a step; see :class:`MALA`.

    A kernel says in :meth:`_transition` how BlackJAX takes a step from the origin, in ``state_cls``
    which state it has, and in ``statistic`` which field of it reports each step.
    """

    state_cls: ClassVar[Any]
    statistic: ClassVar[str]
    sample_field = "z"

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
    ) -> None:
        check_arguments(
            model, potential_fn, step_size, inverse_mass_matrix, dense_mass, target_accept_prob
        )
        self._model = model
        self._potential_fn = potential_fn
        self._step_size = step_size
        self._inverse_mass_matrix = inverse_mass_matrix
        self._adapt_step_size = adapt_step_size
        self._adapt_mass_matrix = adapt_mass_matrix
        self._dense_mass = dense_mass
        self._target_accept_prob = target_accept_prob
        self._init_strategy = init_strategy
        self._num_warmup = 0
        # Closures, built by `init`; a pickle goes without, see `_CLOSURES`.
        self._sample_fn: Callable[..., Any] | None = None
        self._target: Target | None = None
        self._warmup: Warmup | None = None

    @abstractmethod
    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        logdensity: Array,
        score: Array,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        """Take one BlackJAX step from the origin, where log density and score are known."""

    @property
    def model(self) -> Callable[..., Any] | None:
        """The NumPyro model, or None for a kernel that was given a ``potential_fn``."""
        return self._model

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Collected at every step without being asked for."""
        return ("z", "diverging")

    # -- set-up ------------------------------------------------------------------------------

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: PyTree = None,
        model_args: tuple = (),
        model_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return the initial state, of one chain or, for a batch of keys, of several.

        :param rng_key: one key (``sequential``, ``parallel``), or one per chain (``vectorized``).
        :param num_warmup: number of warm-up steps that will be taken.
        :param init_params: unconstrained starts, with a leading axis of chains for a batch of
            keys; None for the kernel's ``init_strategy``.
        :raises ModelError: for a model that cannot be sampled, see :func:`check_model`.
        """
        model_kwargs = {} if model_kwargs is None else model_kwargs
        several = not is_prng_key(rng_key)
        if several:
            rng_key, init_key = jnp.swapaxes(jax.vmap(jax.random.split)(rng_key), 0, 1)
        else:
            rng_key, init_key = jax.random.split(rng_key)
        self._num_warmup = num_warmup
        if self._potential_fn is not None:
            self._target, z = potential_target(self._potential_fn, init_params)
        else:
            assert self._model is not None, "check_arguments"
            self._target, z = model_target(
                init_key, self._model, self._init_strategy, init_params, model_args, model_kwargs
            )
        schedule = build_schedule(num_warmup)
        self._warmup = warmup = build_warmup(
            schedule,
            step_size=self._step_size,
            adapt_step_size=self._adapt_step_size,
            adapt_mass_matrix=self._adapt_mass_matrix,
            target_accept_prob=self._target_accept_prob,
        )
        potential_fn = self._target.potential_fn(model_args, model_kwargs)

        def start(rng_key: Array, z: PyTree) -> Any:
            return self._initial_state(rng_key, z, potential_fn, warmup)

        if several:
            start = jax.vmap(start, out_axes=self._axes())
        # Compiled as a whole: one by one, its operations would each be compiled on their own.
        state = jax.jit(start)(rng_key, z)
        if self._dense_mass and self._adapt_mass_matrix:
            check_window(schedule, state.score.shape[-1], self._target_accept_prob)
        if init_params is not None:
            check_start(state.potential_energy, state.score)
        self._sample_fn = self.sample
        return state

    def _initial_state(
        self,
        rng_key: Array,
        z: PyTree,
        potential_fn: Callable[[PyTree], Array],
        warmup: Warmup,
    ) -> Any:
        potential_energy, gradient = flat_value_and_grad(potential_fn, z)
        whitening = initial_whitening(self._inverse_mass_matrix, gradient.size, self._dense_mass)
        statistic = dict.fromkeys(
            (self.statistic, f"mean_{self.statistic}"), jnp.zeros_like(potential_energy)
        )
        return self.state_cls(
            i=jnp.zeros((), int),
            z=z,
            potential_energy=potential_energy,
            score=-whitening.whiten_gradient(gradient),
            diverging=jnp.zeros((), bool),
            adapt_state=warmup.init(whitening, gradient.size),
            rng_key=rng_key,
            **statistic,
        )

    def _axes(self) -> Any:
        """Axes of a batch of chains. The counter has none: a batched branch runs both its sides."""
        return self.state_cls(**dict.fromkeys(self.state_cls._fields, 0) | {"i": None})

    # -- one step ----------------------------------------------------------------------------

    def sample(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return the state after one step of each chain in ``state``."""
        # Built here, not in `init`: under jit_model_args=True each data set has its own.
        target, warmup = self._initialized()
        potential_fn = target.potential_fn(model_args, model_kwargs)
        in_warmup = state.i < self._num_warmup

        def step(state: Any) -> tuple[Any, Transition]:
            return self._step(state, potential_fn, in_warmup)

        def adapt(adapt_state: AdaptState, score: Array, transition: Transition) -> Any:
            return warmup.update(
                state.i,
                adapt_state,
                transition.step,
                score,
                transition.accept_prob,
                transition.moved,
            )

        if not is_prng_key(state.rng_key):
            axes = self._axes()
            step = jax.vmap(step, in_axes=(axes,), out_axes=(axes, 0))
            adapt = jax.vmap(adapt)
        new, transition = step(state)
        if self._num_warmup == 0 or not (self._adapt_step_size or self._adapt_mass_matrix):
            return new
        adapt_state, score = jax.lax.cond(
            in_warmup, adapt, lambda *args: args[:2], new.adapt_state, new.score, transition
        )
        return new._replace(adapt_state=adapt_state, score=score)

    def _step(
        self, state: Any, potential_fn: Callable[[PyTree], Array], in_warmup: Array
    ) -> tuple[Any, Transition]:
        rng_key, step_key = jax.random.split(state.rng_key)
        whitening, step_size = state.adapt_state.whitening, state.adapt_state.step_size
        z, unravel = ravel_pytree(state.z)
        place = whitening.placer(z)

        def logdensity_fn(v: Array) -> Array:
            return -potential_fn(unravel(place(v)))

        transition = self._transition(
            step_key, logdensity_fn, -state.potential_energy, state.score, step_size, in_warmup
        )
        n = 1 + jnp.where(in_warmup, state.i, state.i - self._num_warmup)
        mean = getattr(state, f"mean_{self.statistic}")
        new = state._replace(
            i=state.i + 1,
            z=unravel(place.settle(transition.step, transition.moved)),
            potential_energy=-transition.logdensity,
            score=transition.score,
            diverging=transition.diverging,
            rng_key=rng_key,
            **{self.statistic: transition.statistic},
            **{f"mean_{self.statistic}": mean + (transition.statistic - mean) / n},
        )
        return new, transition

    # -- the rest of numpyro's contract ------------------------------------------------------

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return the map from unconstrained to constrained values and deterministic sites."""
        if self._target is None:
            return identity
        return self._target.postprocess_fn(model_args, model_kwargs)

    def get_constrain_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return the map from unconstrained to constrained values, without a run of the model.

        Where a support depends on other sites, the model is run all the same.
        """
        if self._target is None:
            return identity
        return self._target.constrain_fn(model_args, model_kwargs)

    def refresh(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return ``state`` with the potential and score of its position under new arguments."""
        potential_fn = self._initialized()[0].potential_fn(model_args, model_kwargs)

        def evaluate(z: PyTree, whitening: Whitening) -> tuple[Array, Array]:
            energy, gradient = flat_value_and_grad(potential_fn, z)
            return energy, -whitening.whiten_gradient(gradient)

        if not is_prng_key(state.rng_key):
            evaluate = jax.vmap(evaluate)
        energy, score = evaluate(state.z, state.adapt_state.whitening)
        return state._replace(potential_energy=energy, score=score)

    def wrap_model(self, wrapper: Callable[..., Any]) -> BlackJAXKernel:
        """Return a copy of this kernel whose model is ``wrapper(self.model)``."""
        if self._model is None:
            raise ValueError(
                "wrap_model needs a kernel that was built from a model, not from potential_fn."
            )
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        return kernel

    def _initialized(self) -> tuple[Target, Warmup]:
        if self._target is None or self._warmup is None:
            raise RuntimeError(f"{type(self).__name__}.init must run first.")
        return self._target, self._warmup

    def __getstate__(self) -> dict[str, Any]:
        # MCMC runs `init` again where `_sample_fn` is None, and `init` builds the rest.
        return self.__dict__ | dict.fromkeys(_CLOSURES)

    def __repr__(self) -> str:
        target = self._model if self._model is not None else self._potential_fn
        name = getattr(target, "__name__", type(target).__name__)
        metric = "dense" if self._dense_mass else "diagonal"
        return f"{type(self).__name__}({name}, {metric} metric)"
