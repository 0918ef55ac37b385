"""The distribution of a diffusion model: normalized, and drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Self, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int, is_concrete
from numpyro_score._typing import Array, PyTree, Shape
from numpyro_score.distributions._lost import when_lost
from numpyro_score.distributions._noised import at_noise
from numpyro_score.distributions._tangents import changes, materialize
from numpyro_score.distributions.base import LearnedDistribution
from numpyro_score.distributions.energy import EnergyDistribution
from numpyro_score.distributions.score import ScoreDistribution
from numpyro_score.networks import score_fn
from numpyro_score.networks.noised_base import NoisedGaussian
from numpyro_score.samplers import flow_log_density, last_normal, reverse_sde
from numpyro_score.samplers.flow_density import Divergence, check_data_scale
from numpyro_score.sde import SDE, From
from numpyro_score.sde.base import check_sde

_EXACT_UP_TO = 64


class DiffusionDistribution(LearnedDistribution):
    r"""Distribution of the data of a diffusion model, from its score at all times.

    ``log_prob`` follows the probability-flow ODE from an event to noise, whose density is known:
    it is normalized, so that the distribution may be a prior, a likelihood whose condition is
    latent, and enter LOO and Bayes factors. Its gradient is the score at the first time, which a
    kernel gets without a derivative of the solver. ``sample`` runs the diffusion backwards. Both
    are of the data with the noise of ``sde.t_min``.

    The divergence along the flow is exact in up to 64 dimensions, at one derivative for each;
    above, Hutchinson's estimate takes one fixed direction of signs, which makes ``log_prob`` a
    function with an error of its own; the ``repr`` says which.

    The flow of a learned score and its reverse diffusion agree where the score is a gradient and
    solves the equation that links its times: *do not* take differences of ``log_prob`` far from the
    data at their word.

    Source: Y. Song et al., Score-based generative modeling through stochastic differential
    equations, ICLR (2021), sections 3 and 4.3.

    :param network: ``network(x, t)`` or ``network(x, t, condition)`` of one event, a score or an
        energy, such as :class:`~numpyro_score.sde.InTime` of a network of noise levels.
    :param sde: the diffusion that it was trained for.
    :param event_shape: shape of one event, of rank 1 or more.
    :param condition: conditions of shape ``batch_shape + condition_event``; see
        :class:`EnergyDistribution`.
    :param condition_event_dim: how many trailing axes of ``condition`` are one condition.
    :param data_scale: one number, a typical standard deviation of the data, of which the flow makes
        a standard normal; by default that of the network's base, where it has one, else 1.
    :param divergence: ``"exact"`` or ``"hutchinson"``; by default as above.
    :param num_steps: steps of a draw, two evaluations of the network each.
    :raises TypeError: ``sde`` is none.
    :raises ValueError: a network of the wrong output shape, or a number out of range.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.distributions import DiffusionDistribution
    >>> from numpyro_score.sde import VP
    >>> d = DiffusionDistribution(lambda x, t: -x, VP(), (2,))  # of standard normal data
    >>> bool(abs(d.log_prob(jnp.zeros(2)) + jnp.log(2 * jnp.pi)) < 1e-3)
    True
    >>> d.sample(jax.random.key(0), (3,)).shape
    (3, 2)
    """

    pytree_data_fields = ("data_scale",)
    pytree_aux_fields = ("sde", "divergence", "num_steps")

    def __init__(
        self,
        network: PyTree,
        sde: SDE,
        event_shape: Shape,
        *,
        condition: Array | None = None,
        condition_event_dim: int = 1,
        data_scale: Array | float | None = None,
        divergence: Divergence | None = None,
        num_steps: int = 100,
        validate_args: bool | None = None,
    ) -> None:
        check_sde(sde)
        check_int(num_steps, "num_steps", 1)
        if divergence not in (None, *get_args(Divergence)):
            raise ValueError(f"divergence must be 'exact' or 'hutchinson', got {divergence!r}.")
        self.sde = sde
        self.num_steps = num_steps
        super().__init__(
            network,
            event_shape,
            condition=condition,
            condition_event_dim=condition_event_dim,
            log_normalizer=0.0,
            validate_args=validate_args,
        )
        size = prod(self.event_shape)
        self.divergence = divergence or ("exact" if size <= _EXACT_UP_TO else "hutchinson")
        if data_scale is None:
            data_scale = _scale_of(self.network)
        check_data_scale(data_scale)
        self.data_scale = jnp.asarray(data_scale, float)

    def _check_network(self, event_shape: Shape) -> None:
        if event_shape == ():
            raise ValueError(
                "DiffusionDistribution needs an event_shape with at least one axis, because a "
                "scalar score cannot be told from an energy; use event_shape=(1,)."
            )
        # The score says itself what is wrong with a shape.
        args = [jnp.zeros(event_shape), jnp.asarray(self.sde.t_max, float)]
        if self.condition is not None:
            args.append(self.condition.reshape(-1, *self._condition_event())[0])
        jax.eval_shape(lambda *a: score_fn(self.network, event_shape)(*a), *args)

    def _condition_event(self) -> Shape:
        assert self.condition is not None, "asked for where there is one"
        return self.condition.shape[self.condition.ndim - self.condition_event_dim :]

    def _flow(self) -> _Flow:
        return _Flow(self._static, self.sde, self.event_shape, self.divergence)

    def _event_log_prob(self, x: Array, condition: Array | None = None) -> Array:
        return _log_prob(self._flow(), (self._arrays, condition, self.data_scale), x)

    def score(self, value: Array) -> Array:
        """The score at the first time, without the flow."""
        flow, arrays, scale = self._flow(), self._arrays, self.data_scale
        first = jnp.asarray(self.sde.t_min, float)

        def score(x: Array, condition: Array | None = None) -> Array:
            return flow.score((arrays, condition, scale))(x, first)

        return self._map(score, value)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draw by the reverse diffusion.

        :param key: a random key.
        :return: draws of shape ``sample_shape + batch_shape + event_shape``.
        :raises FloatingPointError: the score was not finite on the way; not under ``jit``.
        """
        draws = _draw(self, key, tuple(sample_shape))
        if is_concrete(draws):
            lost = ~np.isfinite(draws).reshape(-1, prod(self.event_shape)).all(1)
            if lost.any():
                raise FloatingPointError(
                    f"{lost.mean():.1%} of the draws are not finite: {self._when_lost(key)}"
                )
        return draws

    def _when_lost(self, key: Array) -> str:
        shape, scale, c = self.event_shape, self.data_scale, self.condition
        c = None if c is None else c.reshape(-1, *self._condition_event())[0]
        score = self._flow().score((self._arrays, c, scale))
        return when_lost(key, score, self.sde, shape, scale, self.num_steps)

    def marginal(self, t: float) -> DiffusionDistribution:
        """Return the distribution of the noised variable at time ``t``.

        :raises ValueError: a time that is not between ``t_min`` and ``t_max``.
        """
        options = self._options() | {"sde": From(self.sde, float(t))}
        return DiffusionDistribution(self.network, event_shape=self.event_shape, **options)

    def without_normalizer(
        self, noise_scale: float = 0.0, num_nodes: int = 16
    ) -> EnergyDistribution | ScoreDistribution:
        """Return the same distribution known by its network alone, for which no ODE is solved.

        A kernel that needs no normalizer, such as MALA, then takes steps a hundred times as fast.

        :param noise_scale: standard deviation of the noise in units of the data; that of
            ``sde.t_min`` where it is less.
        :param num_nodes: of the line integral that is the density of a score, see
            :class:`ScoreDistribution`.

        >>> import jax.numpy as jnp
        >>> from numpyro_score.distributions import DiffusionDistribution
        >>> from numpyro_score.sde import VP
        >>> DiffusionDistribution(lambda x, t: -x, VP(), (2,)).without_normalizer()
        ScoreDistribution(AtTime, batch_shape=(), event_shape=(2,), unnormalized)
        """
        return at_noise(self, noise_scale, num_nodes)

    def with_log_normalizer(self, log_normalizer: Array | float) -> Self:
        """Refused: the density has its normalizer.

        :raises ValueError: always.
        """
        raise ValueError("a DiffusionDistribution is normalized by construction.")

    def _options(self) -> dict[str, Any]:
        return {
            "sde": self.sde,
            "condition": self.condition,
            "condition_event_dim": self.condition_event_dim,
            "data_scale": self.data_scale,
            "divergence": self.divergence,
            "num_steps": self.num_steps,
        }

    def _state(self) -> str:
        how = "exact trace" if self.divergence == "exact" else "one fixed probe of the trace"
        return f"{type(self.sde).__name__}, {how}"


def _scale_of(network: Any) -> Array | float:
    """Return the scale of the data that a network of noise levels was fitted to; 1 if unknown."""
    for inner in (network, getattr(network, "network", None)):
        base = getattr(inner, "base", None)
        if isinstance(base, NoisedGaussian):
            return base.data_scale
    return 1.0


@dataclass(frozen=True)
class _Flow:
    """The probability flow of a network without its arrays: hashable, for autodiff."""

    static: PyTree
    sde: SDE
    event_shape: Shape
    divergence: Divergence

    def score(self, args: tuple[PyTree, Array | None, Array]) -> Callable[[Array, Array], Array]:
        """Return ``score(x, t)``, from the arrays of the network, a condition and the scale."""
        arrays, condition, _ = args
        rest = () if condition is None else (condition,)
        score = score_fn(eqx.combine(arrays, self.static), self.event_shape)
        return lambda x, t: score(x, t, *rest)

    def log_density(self, args: Any, x: Array, adjoint: Any = None) -> Array:
        """Return the log density of one event."""
        return flow_log_density(
            self.score(args),
            self.sde,
            x,
            data_scale=args[2],
            divergence=self.divergence,
            adjoint=adjoint,
        )


@partial(jax.jit, static_argnums=0)
def _solve(flow: _Flow, args: Any, x: Array) -> Array:
    # Compiled once for all distributions of one network, also where nobody compiles the model.
    return flow.log_density(args, x)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_prob(flow: _Flow, args: Any, x: Array) -> Array:
    return _solve(flow, args, x)


@partial(_log_prob.defjvp, symbolic_zeros=True)
def _log_prob_jvp(flow: _Flow, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (args, x), (args_dot, x_dot) = primals, tangents
    if changes(args_dot):
        # Weights or a condition: through the steps of the solver, in both modes.
        value, out_dot = jax.jvp(
            lambda args: flow.log_density(args, x, diffrax.DirectAdjoint()),
            (args,),
            (materialize(args, args_dot),),
        )
    else:
        value = _log_prob(flow, args, x)
        out_dot = jnp.zeros_like(value)
    if changes(x_dot):
        first = jnp.asarray(flow.sde.t_min, x.dtype)
        out_dot = out_dot + jnp.sum(flow.score(args)(x, first) * x_dot)
    return value, out_dot


@partial(jax.jit, static_argnums=2)
def _draw(distribution: DiffusionDistribution, key: Array, sample_shape: Shape) -> Array:
    flow, sde = distribution._flow(), distribution.sde

    def draw(key: Array, log_prob: Any, condition: Array | None = None) -> Array:
        scale = distribution.data_scale
        score = flow.score((distribution._arrays, condition, scale))
        start_key, walk_key = jax.random.split(key)
        x = last_normal(score, sde, flow.event_shape, scale).sample(start_key, (1,))
        return reverse_sde(walk_key, score, sde, x, num_steps=distribution.num_steps)[0]

    return distribution._map_events(draw, key, sample_shape)
