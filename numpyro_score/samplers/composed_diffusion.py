"""Draws from a product of diffusion models, by MCMC and weights at each noise level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc.mala import MALAState
from blackjax.smc import resampling

from numpyro_score._checks import as_shape, check_int, is_concrete
from numpyro_score._typing import Array, PyTree, Shape
from numpyro_score.networks import as_network
from numpyro_score.samplers._composed_target import ComposedTarget
from numpyro_score.samplers._diffusion import Times, walk_and_remember
from numpyro_score.samplers._effective import tell_few
from numpyro_score.samplers.flow_density import Divergence
from numpyro_score.sde import SDE
from numpyro_score.sde.base import check_sde

_TARGET_ACCEPT_PROB, _GAIN = 0.574, 0.5
_EXACT_UP_TO = 64


@dataclass(frozen=True)
class AnnealedParticles:
    """Sampler that lets a product of diffusions draw, by :func:`composed_diffusion`.

    All draws of one call come from one population, so that they are not quite independent; ask for
    many at once.

    :param num_particles: the least size of that population, of which draws are picked.
    :param num_levels: noise levels on the way.
    :param num_moves: tested Langevin steps at each.

    >>> from numpyro_score.distributions import DiffusionDistribution, Product
    >>> from numpyro_score.samplers import AnnealedParticles
    >>> from numpyro_score.sde import VP
    >>> factor = DiffusionDistribution(lambda x, t: -x, VP(), (2,))
    >>> d = Product([factor, factor], sampler=AnnealedParticles(num_levels=50))
    """

    num_particles: int = 256
    num_levels: int = 100
    num_moves: int = 5

    def __post_init__(self) -> None:
        for name in ("num_particles", "num_levels", "num_moves"):
            check_int(getattr(self, name), name, 1)


class ComposedDraws(NamedTuple):
    """Draws of a product, and what happened on the way, level by level from the largest.

    - **positions** - shape ``(num_particles, *event_shape)``, in random order. They descend from
      fewer particles where weights differed: ``ess`` says how much.
    - **ess** - effective number of particles after reweighting to each level.
    - **accept_prob** - of the moves there.
    - **noise_scales** - the levels.
    """

    positions: Array
    ess: Array
    accept_prob: Array
    noise_scales: Array


def composed_diffusion(
    rng_key: Array,
    networks: Sequence[Any],
    sde: SDE,
    event_shape: Shape,
    num_particles: int = 1_000,
    *,
    weights: Array | Sequence[float] | None = None,
    log_factor: Callable[[Array], Array] | None = None,
    data_scales: Sequence[Array | float] | None = None,
    num_levels: int = 100,
    num_moves: int = 5,
    path_nodes: int = 5,
    num_nodes: int = 2,
    divergence: Divergence | None = None,
    reweight: bool = True,
    progress_bar: bool = False,
) -> ComposedDraws:
    r"""Draw from :math:`\prod_i p_i(x)^{w_i} L(x)` where each p is a diffusion.

    The product of noised densities is not the noised product: a reverse diffusion with the sum of
    the scores draws from neither. But the products of noised densities,

    .. math:: q_k(x) \propto \prod_i p_{i, \sigma_k}(x)^{w_i}\, L(x)^{k / K},

    are a sequence of targets that ends in what is wanted. Particles start in the normal that the
    first one nearly is and go from level to level, moved at each by ``num_moves`` tested Langevin
    steps (MALA), with one step size for all that follows their acceptance: the annealed MCMC of Du
    et al. (2023). Energies are compared as they are; where a network is a score, its sum is
    integrated along each step by ``path_nodes`` nodes.

    Moves alone leave modes the weights that they had at the level where they parted. So particles
    are also weighted by :math:`q_{k+1} / q_k` at the place where they are, an integral over the
    noise between the levels with ``num_nodes`` nodes, and resampled where half of them are left.
    That is sequential Monte Carlo: *exact* as the number of particles grows. A few particles are
    biased towards what annealed MCMC gives.

    Sources: Y. Du et al., Reduce, reuse, recycle: compositional generation with energy-based
    diffusion models and MCMC, ICML (2023), sections 3.1 and 4; P. Del Moral, A. Doucet & A. Jasra,
    Sequential Monte Carlo samplers, Journal of the Royal Statistical Society B 68 (2006), for the
    weights.

    :param rng_key: a random key.
    :param networks: ``network(x, t)`` of one event for each i, an energy or a score.
    :param sde: the diffusion of all of them.
    :param event_shape: shape of one event, of rank 1 or more.
    :param num_particles: particles, and draws.
    :param weights: :math:`w_i`; 1 by default.
    :param log_factor: log L of one event, of anything that has no noise levels; weighed in evenly.
        It may be -inf, where L is 0.
    :param data_scales: standard deviations of the data of each network, for the start; 1 by
        default.
    :param num_levels: K.
    :param num_moves: steps at each level.
    :param path_nodes: nodes along a step, both ends included.
    :param num_nodes: nodes between two levels.
    :param divergence: of the scores in the weights, see
        :func:`~numpyro_score.samplers.flow_log_density`; by default exact in up to 64 dimensions.
    :param reweight: False for annealed MCMC alone: cheaper, the modes right and their weights not.
    :param progress_bar: show the levels.
    :return: :class:`ComposedDraws`. A warning tells where less than a twentieth of the particles
        was effective.
    :raises FloatingPointError: the score was not finite somewhere, or ``log_factor`` NaN, or -inf
        at all particles; under ``jit`` draws are NaN.
    :raises ValueError: numbers out of range, or weights whose product of normals is none.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.samplers import composed_diffusion
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.01, 10.0)
    >>> networks = [  # of N(0, 1) and N(3, 1): their product is N(3/2, 1/2)
    ...     lambda x, t, mean=mean: (mean - x) / (1 + sde.marginal_std(t) ** 2)
    ...     for mean in (0.0, 3.0)
    ... ]
    >>> draws = composed_diffusion(jax.random.key(0), networks, sde, (1,), 500, num_levels=30)
    >>> bool(abs(draws.positions.mean() - 1.5) < 0.2), bool(abs(draws.positions.var() - 0.5) < 0.2)
    (True, True)
    """
    check_sde(sde)
    event_shape = as_shape(event_shape, "event_shape")
    for value, name, least in (
        (num_particles, "num_particles", 1),
        (num_levels, "num_levels", 1),
        (num_moves, "num_moves", 1),
        (path_nodes, "path_nodes", 2),
        (num_nodes, "num_nodes", 1),
    ):
        check_int(value, name, least)
    nets = [as_network(network) for network in networks]
    powers = jnp.ones(len(nets)) if weights is None else jnp.asarray(weights, float)
    if not nets or powers.shape != (len(nets),):
        raise ValueError(
            f"weights must be one number for each of at least one network, got the shape "
            f"{powers.shape} for {len(nets)}."
        )
    exact = divergence or ("exact" if prod(event_shape) <= _EXACT_UP_TO else "hutchinson")
    target = ComposedTarget(
        nets, powers, sde, event_shape, log_factor, path_nodes, num_nodes, exact == "exact"
    )
    first, last = (sde.noise_scale(jnp.asarray(t, float)) for t in (sde.t_max, sde.t_min))
    levels = jnp.geomspace(first, last, num_levels + 1)
    scales = [1.0] * len(nets) if data_scales is None else data_scales
    mean, variance = target.start(scales)
    if is_concrete(variance) and not (np.isfinite(variance) and variance > 0):
        raise ValueError(
            f"the weights {powers} leave no density where noise is largest: there each factor is "
            "nearly normal, and their precisions, times the weights, must have a sum above 0."
        )
    start_key, walk_key, order_key = jax.random.split(rng_key, 3)
    noise = jax.random.normal(start_key, (num_particles, *event_shape))
    step_size = variance * prod(event_shape) ** (-1 / 3)
    stepper = _Anneal(target, num_levels, num_moves, reweight, step_size)
    # A walk takes a step from each entry to the next, the first one to where it is.
    times = jnp.concatenate([levels[:1], levels])
    x, memory = walk_and_remember(
        walk_key,
        stepper,
        lambda x, level: x,
        mean + jnp.sqrt(variance) * noise,
        times,
        progress_bar,
    )
    if is_concrete(memory.ess):
        tell_few(np.asarray(memory.ess), num_particles)
    # Under jit nothing can be raised: copies of one particle would pass for draws.
    x = jnp.where(jnp.isnan(memory.ess).any(), jnp.nan, x)
    return ComposedDraws(
        jax.random.permutation(order_key, x), memory.ess, memory.accept_prob, levels
    )


class _Memory(NamedTuple):
    """What particles share from level to level."""

    i: Array
    log_weights: Array
    log_step_size: Array
    ess: Array
    accept_prob: Array


@dataclass(frozen=True)
class _Anneal:
    """From one level to the next: weights, resampling, moves."""

    target: ComposedTarget
    num_levels: int
    num_moves: int
    reweight: bool
    step_size: Array

    def init(self, x: Array) -> _Memory:
        """Return the memory before the first level."""
        record = jnp.zeros(self.num_levels + 1)
        return _Memory(
            jnp.zeros((), int), jnp.zeros(len(x)), jnp.log(self.step_size), record, record
        )

    def step(
        self, rng_key: Array, x: Array, memory: _Memory, times: Times, score: Any
    ) -> tuple[Array, PyTree]:
        """Return particles at the level ``times.next``; NaN for one whose score is not finite."""
        resample_key, move_key = jax.random.split(rng_key)
        i, log_weights = memory.i, memory.log_weights
        power = i / self.num_levels
        if self.reweight:
            growth = jnp.where(i == 0, 0.0, 1 / self.num_levels)
            ratio = jax.vmap(self.target.log_ratio, (0, None, None, None))
            log_weights = log_weights + ratio(x, times.next, times.now, growth)
        else:
            log_weights = jax.vmap(self.target.allowed, (0, None))(x, power)
        shares = jax.nn.softmax(log_weights)
        ess = 1 / jnp.sum(shares**2)
        # A particle without density, where a factor is 0, accepts no move and spoils the step size:
        # it makes way at once.
        few = (ess < len(x) / 2) | jnp.any(log_weights == -jnp.inf) | (i == self.num_levels)
        # Weights that are no numbers choose nothing; they stay, and are told in the end.
        few &= ~jnp.isnan(ess)
        chosen = resampling.systematic(resample_key, shares, len(x))
        x = jnp.where(few, x[chosen], x)
        log_weights = jnp.where(few, 0.0, log_weights)
        x, log_step_size, accept_prob = self._move(
            move_key, x, times.next, power, memory.log_step_size
        )
        return x, _Memory(
            i + 1,
            log_weights,
            log_step_size,
            memory.ess.at[i].set(ess),
            memory.accept_prob.at[i].set(accept_prob),
        )

    def _move(
        self, rng_key: Array, x: Array, level: Array, power: Array, log_step_size: Array
    ) -> tuple[Array, Array, Array]:
        kernel = blackjax.mala.build_kernel()

        def gradient(x: Array) -> Array:
            return jax.grad(self.target.local(x, level, power))(x)

        def advance(key: Array, x: Array, gradient: Array, step_size: Array) -> tuple:
            start = MALAState(x, jnp.zeros(()), gradient)
            state, info = kernel(key, start, self.target.local(x, level, power), step_size)
            return state.position, state.logdensity_grad, info.acceptance_rate

        def step(carry: tuple, key: Array) -> tuple[Any, Array]:
            x, gradient, log_step_size = carry
            keys = jax.random.split(key, len(x))
            x, gradient, accept_prob = jax.vmap(advance, (0, 0, 0, None))(
                keys, x, gradient, jnp.exp(log_step_size)
            )
            mean = jnp.mean(jnp.nan_to_num(accept_prob))
            log_step_size = log_step_size + _GAIN * (mean - _TARGET_ACCEPT_PROB)
            return (x, gradient, log_step_size), mean

        first = jax.vmap(gradient)(x)
        keys = jax.random.split(rng_key, self.num_moves)
        carry, accept_prob = jax.lax.scan(step, (x, first, log_step_size), keys)
        x, last, log_step_size = carry
        finite = jnp.isfinite(last).reshape(len(x), -1).all(1)
        x = jnp.where(finite.reshape((-1,) + (1,) * (x.ndim - 1)), x, jnp.nan)
        return x, log_step_size, jnp.mean(accept_prob)
