"""A kernel of anybody's BlackJAX-style algorithm."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._transition import Origin, Transition
from numpyro_score.infer._warmup import AdaptState
from numpyro_score.infer.preconditioned import PreconditionedKernel

_STATE_FIELDS = ("position", "logdensity", "logdensity_grad")


class AlgorithmState(NamedTuple):
    """State of a kernel made by :func:`kernel_from_algorithm`.

    That of :class:`MetropolisState`, and **memory**: what the algorithm's own state holds beside
    position, log density and gradient.
    """

    i: Array
    z: PyTree
    potential_energy: Array
    score: Array
    accept_prob: Array
    mean_accept_prob: Array
    diverging: Array
    memory: dict[str, PyTree]
    adapt_state: AdaptState
    rng_key: Array


class AlgorithmKernel(PreconditionedKernel):
    """Kernel of an algorithm with ``init`` and ``build_kernel``; see :func:`kernel_from_algorithm`.

    The algorithm works in whitened coordinates, in which every step starts at the origin.
    """

    state_cls = AlgorithmState
    carry_fields = ("memory",)
    one_evaluation = False
    algorithm: ClassVar[Any]
    parameters: ClassVar[Mapping[str, Any]]

    def _initial_carry(self, rng_key: Array, score: Array) -> dict[str, Any]:
        state = self._state_at_origin(rng_key, score)._asdict()
        return {"memory": {k: v for k, v in state.items() if k not in _STATE_FIELDS}}

    def _state_at_origin(self, rng_key: Array, score: Array) -> Any:
        # Under a flat density, which costs nothing: log density and gradient are replaced.
        init = self.algorithm.init
        keys = {"rng_key": rng_key} if "rng_key" in inspect.signature(init).parameters else {}
        state = init(jnp.zeros_like(score), lambda v: 0.0 * jnp.sum(v), **keys)
        missing = [field for field in _STATE_FIELDS if not hasattr(state, field)]
        if missing:
            raise TypeError(
                f"The state of {type(self).__name__} needs the fields {list(_STATE_FIELDS)}, as "
                f"BlackJAX's mala has; {type(state).__name__} lacks {missing}."
            )
        return state

    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        start = self._state_at_origin(rng_key, origin.score)._replace(
            logdensity=origin.logdensity, logdensity_grad=origin.score, **origin.carry["memory"]
        )
        kernel = self.algorithm.build_kernel()
        parameters = dict(self.parameters)
        if "inverse_mass_matrix" in inspect.signature(kernel).parameters:
            parameters.setdefault("inverse_mass_matrix", jnp.ones_like(origin.score))
        state, info = kernel(rng_key, start, logdensity_fn, step_size=step_size, **parameters)
        accept_prob = jnp.nan_to_num(info.acceptance_rate)
        return Transition(
            step=state.position,
            logdensity=state.logdensity,
            score=state.logdensity_grad,
            accept_prob=accept_prob,
            moved=jnp.any(state.position != 0),
            diverging=getattr(info, "is_divergent", accept_prob == 0),
            statistic=accept_prob,
            carry={"memory": {field: getattr(state, field) for field in origin.carry["memory"]}},
        )


def kernel_from_algorithm(
    name: str, algorithm: Any, *, target_accept_prob: float = 0.574, **parameters: Any
) -> type[AlgorithmKernel]:
    """Return the class of a kernel around a BlackJAX-style algorithm.

    It gets all that the kernels of this package have: step size and metric are tuned, chains are
    vectorized, states resumed.

    :param name: name of the class to make.
    :param algorithm: a module or object with ``init(position, logdensity_fn)``, which may take
        ``rng_key`` too, and ``build_kernel()``, which returns
        ``kernel(rng_key, state, logdensity_fn, step_size, ...) -> (state, info)``. The state is a
        NamedTuple with ``position``, ``logdensity`` and ``logdensity_grad``, the info has an
        ``acceptance_rate``; the algorithm must not care where in space the origin is.
    :param target_accept_prob: mean acceptance that the step size is tuned to.
    :param parameters: further arguments of the kernel. An ``inverse_mass_matrix`` is the identity,
        because the coordinates are whitened.
    :raises TypeError: for anything else, with what is missing.

    >>> from blackjax.mcmc import barker
    >>> from numpyro_score.infer import kernel_from_algorithm
    >>> kernel_from_algorithm("Mine", barker, target_accept_prob=0.4)(potential_fn=lambda z: z @ z)
    Mine(<lambda>, diagonal metric)
    """
    missing = [f for f in ("init", "build_kernel") if not callable(getattr(algorithm, f, None))]
    if missing:
        raise TypeError(
            f"{name!r} is neither a NumPyro kernel nor a BlackJAX-style algorithm: {algorithm!r} "
            f"lacks {missing}."
        )
    arguments = inspect.signature(algorithm.build_kernel()).parameters
    if "step_size" not in arguments:
        raise TypeError(
            f"The kernel of {name!r} takes no step_size to be tuned, only {list(arguments)}."
        )
    unknown = sorted(set(parameters) - set(arguments))
    if unknown:
        raise TypeError(f"The kernel of {name!r} takes {list(arguments)}, not {unknown}.")

    def initialize(self: AlgorithmKernel, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("target_accept_prob", target_accept_prob)
        PreconditionedKernel.__init__(self, *args, **kwargs)

    members = {"__init__": initialize, "algorithm": algorithm, "parameters": parameters}
    return type(name, (AlgorithmKernel,), members)
