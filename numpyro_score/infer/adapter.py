"""BlackJAX in ``numpyro.infer.MCMC``: what every kernel shares, whatever its algorithm."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.infer import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import identity, is_prng_key

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._arguments import check_target
from numpyro_score.infer._initialization import check_start
from numpyro_score.infer._keys import split_key
from numpyro_score.infer._paths import AnchoredPath, LocalPath
from numpyro_score.infer._target import Target, model_target, potential_target

_CLOSURES = ("_sample_fn", "_target")


class BlackJAXKernel(MCMCKernel):
    """Base of all kernels: NumPyro's contract around a BlackJAX algorithm.

    A family of kernels says in :meth:`_start` where its chains begin, in :meth:`_advance` how they
    take a step, and in :meth:`refresh` what new data change. All of them take one chain, or
    several with a leading axis of chains. ``state_cls`` is a NamedTuple that holds at least ``i``,
    ``z``, ``potential_energy``, ``score``, ``diverging`` and ``rng_key``.
    """

    state_cls: ClassVar[Any]
    sample_field = "z"
    #: Why the draws are biased, whatever R-hat says; empty for a kernel that is exact.
    bias: str = ""
    #: The field of the state that tells how large the bias is; empty where none does.
    bias_statistic: ClassVar[str] = ""
    #: Whether a step finds out by itself that the data have changed.
    notices_data: ClassVar[bool] = False
    _path: AnchoredPath | LocalPath = AnchoredPath()

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[PyTree], Array] | None = None,
        init_strategy: Callable[..., Any] = init_to_uniform,
    ) -> None:
        check_target(model, potential_fn)
        self._model = model
        self._potential_fn = potential_fn
        self._init_strategy = init_strategy
        self._num_warmup = 0
        # Closures, built by `init`; a pickle goes without, see `_CLOSURES`.
        self._sample_fn: Callable[..., Any] | None = None
        self._target: Target | None = None

    def _prepare(self, rng_key: Array) -> None:
        """Refuse what this kernel cannot run, before anything is computed."""

    def _check_model(self, model_args: tuple, model_kwargs: dict[str, Any]) -> None:
        """Refuse a model that :func:`check_model` takes and this kernel cannot sample."""
        self._path.check_model(self._model, model_args, model_kwargs)

    def _build_target(
        self, rng_key: Array, init_params: PyTree, model_args: tuple, model_kwargs: dict[str, Any]
    ) -> tuple[Target, PyTree]:
        """Return what this kernel samples, and unconstrained starts."""
        if self._potential_fn is not None:
            return potential_target(self._potential_fn, init_params)
        assert self._model is not None, "check_target"
        return model_target(
            rng_key, self._model, self._init_strategy, init_params, model_args, model_kwargs
        )

    @abstractmethod
    def _start(self, rng_key: Array, z: PyTree, potential_fn: Callable[[PyTree], Array]) -> Any:
        """Return the state at unconstrained values ``z``; keys and ``z`` may have an axis."""

    @abstractmethod
    def _advance(self, state: Any, potential_fn: Callable[[PyTree], Array]) -> Any:
        """Return the state after one step of each chain in ``state``."""

    def _check_state(self, state: Any) -> None:
        """Look at the initial state: warn, or refuse."""

    def _describe(self) -> list[str]:
        """Return what ``repr`` says beside the model's name."""
        return []

    @property
    def model(self) -> Callable[..., Any] | None:
        """The NumPyro model, or None for a kernel that was given a ``potential_fn``."""
        return self._model

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Collected at every step without being asked for."""
        return ("z", "diverging")

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
        self._prepare(rng_key)
        model_kwargs = {} if model_kwargs is None else model_kwargs
        rng_key, init_key = split_key(rng_key)
        self._num_warmup = num_warmup
        self._target, z = self._build_target(init_key, init_params, model_args, model_kwargs)
        self._check_model(model_args, model_kwargs)
        potential_fn = self._target.potential_fn(model_args, model_kwargs)
        # Compiled as a whole: one by one, its operations would each be compiled on their own.
        state = jax.jit(lambda rng_key, z: self._start(rng_key, z, potential_fn))(rng_key, z)
        self._check_state(state)
        if init_params is not None:
            check_start(state.potential_energy, state.score)
        self._sample_fn = self.sample
        return state

    def _axes(self) -> Any:
        """Axes of a batch of chains. The counter has none: a batched branch runs both its sides."""
        return self.state_cls(**dict.fromkeys(self.state_cls._fields, 0) | {"i": None})

    def by_chain(self, state: Any, num_chains: int) -> Any:
        """Return the state of a batch of chains with what they share repeated for each of them."""
        repeat = lambda x: jnp.broadcast_to(x, (num_chains, *jnp.shape(x)))  # noqa: E731
        shared = [name for name, axis in self._axes()._asdict().items() if axis is None]
        fields = {name: jax.tree.map(repeat, getattr(state, name)) for name in shared}
        return state._replace(**fields)

    def sample(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return the state after one step of each chain in ``state``."""
        return self._advance(state, self._stepped_on(model_args, model_kwargs))

    def _stepped_on(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return the potential that steps are taken on."""
        # Built here, not in `init`: under jit_model_args=True each data set has its own.
        return self._initialized().potential_fn(model_args, model_kwargs)

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

    def _score(self, state: Any, gradient: Array) -> Array:
        """Return the ``score`` of one chain from the flat gradient of its potential."""
        return -gradient

    def refresh(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """Return ``state`` with the potential and score of its position under new arguments."""
        return self._evaluate(state, self._initialized().potential_fn(model_args, model_kwargs))

    def _evaluate(self, state: Any, potential_fn: Callable[[PyTree], Array]) -> Any:
        """Return ``state`` with the potential and score of its position."""

        def evaluate(state: Any) -> tuple[dict[str, Any], Array]:
            fields, gradient = self._path.evaluate(potential_fn, state.z)
            return fields, self._score(state, gradient)

        if not is_prng_key(state.rng_key):
            evaluate = jax.vmap(evaluate, in_axes=(self._axes(),))
        fields, score = evaluate(state)
        return state._replace(score=score, **fields)

    def remarks(self, state: Any) -> list[str]:
        """Return what :class:`MCMC` warns of after a run that ended in ``state``.

        :param state: of one chain, or of several with a leading axis.
        """
        return []

    def wrap_model(self, wrapper: Callable[..., Any]) -> BlackJAXKernel:
        """Return a copy of this kernel whose model is ``wrapper(self.model)``."""
        if self._model is None:
            raise ValueError(
                "wrap_model needs a kernel that was built from a model, not from potential_fn."
            )
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        return kernel

    def _initialized(self) -> Target:
        if self._target is None:
            raise RuntimeError(f"{type(self).__name__}.init must run first.")
        return self._target

    def __getstate__(self) -> dict[str, Any]:
        # MCMC runs `init` again where `_sample_fn` is None, and `init` builds the rest.
        return self.__dict__ | dict.fromkeys(_CLOSURES)

    def __repr__(self) -> str:
        target = self._model if self._model is not None else self._potential_fn
        name = getattr(target, "__name__", type(target).__name__)
        described = [name, *self._describe(), *([f"biased: {self.bias}"] if self.bias else [])]
        return f"{type(self).__name__}({', '.join(described)})"
