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
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from numpyro.distributions.transforms import biject_to
from numpyro.infer import init_to_uniform
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import transform_fn
from numpyro.util import identity, is_prng_key

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._arguments import check_arguments, initial_whitening
from numpyro_score.infer._initialization import check_init_params, check_start, initialize
from numpyro_score.infer._schedule import build_schedule, check_window
from numpyro_score.infer._warmup import AdaptState, Warmup, build_warmup
from numpyro_score.infer._whitening import Whitening
from numpyro_score.infer.model_checks import check_model

_CLOSURES = ("_sample_fn", "_potential_fn_gen", "_postprocess_fn", "_inv_transforms", "_warmup")


class Transition(NamedTuple):
    """What a step did, in whitened coordinates.

    - **step** - displacement v, zero where the chain stayed.
    - **logdensity**, **score** - log density and its gradient where the chain is now.
    - **accept_prob** - of the Metropolis test, made or not; it drives the step size.
    - **moved** - whether the proposal was taken.
    - **diverging** - whether the proposal was hopeless, or not finite.
    - **statistic** - what the state reports of this step.
    """

    step: Array
    logdensity: Array
    score: Array
    accept_prob: Array
    moved: Array
    diverging: Array
    statistic: Array


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
        # Closures over the model, built by `init`; a copy and a pickle go without, see `_CLOSURES`.
        self._sample_fn: Callable[..., Any] | None = None
        self._potential_fn_gen: Callable[..., Any] | None = None
        self._postprocess_fn: Callable[..., Any] | None = None
        self._inv_transforms: dict[str, Any] | None = None
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
        z = self._initial_position(init_key, init_params, model_args, model_kwargs)
        schedule = build_schedule(num_warmup)
        self._warmup = build_warmup(
            schedule,
            step_size=self._step_size,
            adapt_step_size=self._adapt_step_size,
            adapt_mass_matrix=self._adapt_mass_matrix,
            target_accept_prob=self._target_accept_prob,
        )
        potential_fn = self._get_potential_fn(model_args, model_kwargs)

        def start(rng_key: Array, z: PyTree) -> Any:
            return self._initial_state(rng_key, z, potential_fn)

        if several:
            start = jax.vmap(start, out_axes=self._axes())
        # Compiled as a whole: one by one, its operations would each be compiled on their own.
        state = jax.jit(start)(rng_key, z)
        if self._dense_mass and self._adapt_mass_matrix:
            check_window(schedule, state.score.shape[-1], self._target_accept_prob)
        if init_params is not None:
            check_start(state.potential_energy, state.score)
        self._sample_fn = self._sample
        return state

    def _initial_position(
        self, rng_key: Array, init_params: PyTree, model_args: tuple, model_kwargs: dict
    ) -> PyTree:
        if self._model is None:
            if init_params is None:
                raise ValueError(
                    "A kernel that is given potential_fn cannot know where to start: pass "
                    "init_params to MCMC.run, of the type that potential_fn takes."
                )
            return init_params
        check_model(self._model, *model_args, **model_kwargs)
        info = initialize(rng_key, self._model, self._init_strategy, model_args, model_kwargs)
        self._potential_fn_gen = info.potential_fn
        self._postprocess_fn = info.postprocess_fn
        self._inv_transforms = _static_transforms(info.model_trace)
        if init_params is None:
            return info.param_info.z
        if GIBBS_SITES_KWARG in model_kwargs:
            # numpyro's Gibbs hands constrained values to blocks that are not its own HMC.
            constrain = {
                name: biject_to(info.model_trace[name]["fn"].support) for name in init_params
            }
            init_params = transform_fn(constrain, init_params, invert=True)
        check_init_params(init_params, info.param_info.z)
        return init_params

    def _initial_state(
        self,
        rng_key: Array,
        z: PyTree,
        potential_fn: Callable[[PyTree], Array],
    ) -> Any:
        potential_energy, gradient = _flat_value_and_grad(potential_fn, z)
        whitening = initial_whitening(self._inverse_mass_matrix, gradient.size, self._dense_mass)
        return self.state_cls(
            i=jnp.zeros((), int),
            z=z,
            potential_energy=potential_energy,
            score=-whitening.whiten_gradient(gradient),
            diverging=jnp.zeros((), bool),
            adapt_state=self._built_warmup().init(whitening, gradient.size),
            rng_key=rng_key,
            **{self.statistic: jnp.zeros_like(potential_energy)},
            **{f"mean_{self.statistic}": jnp.zeros_like(potential_energy)},
        )

    def _axes(self) -> Any:
        """Axes of a batch of chains. The counter has none: a batched branch runs both its sides."""
        return self.state_cls(**dict.fromkeys(self.state_cls._fields, 0) | {"i": None})

    # -- one step ----------------------------------------------------------------------------

    def sample(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return the state after one step of each chain in ``state``."""
        if self._sample_fn is None:
            raise RuntimeError(f"{type(self).__name__}.init must run before sample.")
        return self._sample_fn(state, model_args, model_kwargs)

    def _sample(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        # Built here, not in `init`: under jit_model_args=True each data set has its own.
        potential_fn = self._get_potential_fn(model_args, model_kwargs)
        in_warmup = state.i < self._num_warmup

        def step(state: Any) -> tuple[Any, Transition]:
            return self._step(state, potential_fn, in_warmup)

        def adapt(adapt_state: AdaptState, score: Array, transition: Transition) -> Any:
            return self._built_warmup().update(
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

    def _built_warmup(self) -> Warmup:
        if self._warmup is None:
            raise RuntimeError(f"{type(self).__name__}.init must run before sample.")
        return self._warmup

    # -- the rest of numpyro's contract ------------------------------------------------------

    def _get_potential_fn(
        self, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> Callable[[PyTree], Array]:
        if self._potential_fn is not None:
            return self._potential_fn
        if self._potential_fn_gen is None:
            raise RuntimeError(f"{type(self).__name__}.init must run before its potential is used.")
        return self._potential_fn_gen(*model_args, **(model_kwargs or {}))

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return the map from unconstrained to constrained values and deterministic sites."""
        if self._postprocess_fn is None:
            return identity
        return self._postprocess_fn(*model_args, **(model_kwargs or {}))

    def get_constrain_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return the map from unconstrained to constrained values, without a run of the model.

        Where a support depends on other sites, the model is run all the same.
        """
        if self._inv_transforms is None:
            return self.postprocess_fn(model_args, model_kwargs)
        return lambda z: transform_fn(self._inv_transforms, z)

    def refresh(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return ``state`` with the potential and score of its position under new arguments."""
        potential_fn = self._get_potential_fn(model_args, model_kwargs)

        def evaluate(z: PyTree, whitening: Whitening) -> tuple[Array, Array]:
            energy, gradient = _flat_value_and_grad(potential_fn, z)
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

    def get_diagnostics_str(self, state: Any) -> str:
        """Return what the progress bar says of one chain."""
        return (
            f"step size {state.adapt_state.step_size:.2e}. acc. prob={state.mean_accept_prob:.2f}"
        )

    def __getstate__(self) -> dict[str, Any]:
        # MCMC runs `init` again where `_sample_fn` is None, and `init` builds the rest.
        return self.__dict__ | dict.fromkeys(_CLOSURES)

    def __repr__(self) -> str:
        target = self._model if self._model is not None else self._potential_fn
        name = getattr(target, "__name__", type(target).__name__)
        metric = "dense" if self._dense_mass else "diagonal"
        return f"{type(self).__name__}({name}, {metric} metric)"


def _flat_value_and_grad(potential_fn: Callable[[PyTree], Array], z: PyTree) -> tuple[Array, Array]:
    value, gradient = jax.value_and_grad(potential_fn)(z)
    return value, ravel_pytree(gradient)[0]


def _static_transforms(trace: dict[str, Any]) -> dict[str, Any] | None:
    """Return the bijections of the latent sites, or None where one depends on other values."""
    supports = {
        name: site["fn"].support
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(supports)):
        return None
    return {name: biject_to(support) for name, support in supports.items()}
