"""Replica exchange: chains at many noise levels, which swap what they have found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.util import is_prng_key

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._keys import split_key
from numpyro_score.infer._ladder import build_ladder
from numpyro_score.infer._levels import (
    Level,
    LevelledModel,
    LevelledPotential,
    latent_diffusions,
)
from numpyro_score.infer._replica_remarks import remarks
from numpyro_score.infer._replica_state import (
    ReplicaExchangeState,
    forget,
    new_record,
    posterior_fields,
)
from numpyro_score.infer._replicas import Replicas
from numpyro_score.infer._target import Target
from numpyro_score.infer.adapter import BlackJAXKernel
from numpyro_score.infer.exchange import Exchange
from numpyro_score.infer.model_checks import ModelError
from numpyro_score.infer.registry import register_kernel
from numpyro_score.infer.stochastic import StochasticGradientKernel

# Fractions of the warm-up after which the levels are laid anew.
_RETUNE = (0.125, 0.25, 0.5, 0.7)


@register_kernel(
    "replica_exchange",
    description="Any kernel at many noise levels of a diffusion prior, with swaps: all modes",
    needs=("gradient", "tuning"),
    reference="Swendsen & Wang (1986); Syed et al. (2022)",
)
class ReplicaExchange(BlackJAXKernel):
    r"""Replica exchange through the noise levels of a diffusion prior.

    K replicas of the model differ in the noise of their latent sites with a
    :class:`~numpyro_score.distributions.DiffusionDistribution`, and in the power of the likelihood:

    .. math:: \pi_k(x, \theta) \propto p_{\sigma_k}(x)\, p(\theta)\,
              L(y \mid x, \theta)^{\beta_k},

    from the posterior, :math:`k = 0`, to noise in which modes have melted into one. A step moves
    each by ``num_moves`` steps of ``kernel``, then neighbours swap their positions with
    probability

    .. math:: \min\left(1, \frac{\pi_k(z_{k+1})\, \pi_{k+1}(z_k)}
              {\pi_k(z_k)\, \pi_{k+1}(z_{k+1})}\right),

    even and odd pairs by turns. What is drawn is the replica at the posterior, x with the noise of
    ``sde.t_min``; it has modes that no chain alone would cross between.

    The ratio of the densities at two noise levels is taken at one place, by an integral over the
    noise between them with ``num_nodes`` nodes (of the divergence of the score, exact or by one
    probe as the diffusion has it), and never between places far apart: at little noise score
    matching learns nothing of the weights of modes, and a learned energy compared across them gave
    a weight of 0 where 0.8 was right. So the weights are those that the score has at all levels.
    *Exact* where that is the score of one density with noise; a learned one nearly is, and moves by
    its energy, or the line integral of its score, at each level.

    *Use it* where a posterior has several modes and their weights matter. *Do not* where it has
    one, at K times the cost of ``kernel``.

    Warm-up tunes ``kernel`` at each level, and lays the levels so that neighbours swap at even
    rates (Syed et al. 2022). Read ``swap_accept_prob`` and ``journeys.round_trips``, which
    :meth:`MCMC.get_extra_fields` has unasked: without round trips R-hat says little, and
    :class:`MCMC` warns where most chains made none. A score that is NaN refuses the moves and
    swaps that lead there; ``MCMC`` warns of how many, and at which noise.

    **References:** Swendsen & Wang (1986), "Replica Monte Carlo simulation of spin glasses"; Syed,
    Bouchard-Côté, Deligiannidis & Doucet (2022), "Non-reversible parallel tempering".

    :param kernel: how replicas move: a kernel of this package with a model, such as
        ``MALA(model)``; with a score, ``path="local"`` saves evaluations. Where data are narrow in
        some directions, all levels are: ``dense_mass=True`` then makes some five times as many
        round trips (measured with one number seen of eight).
    :param noise_levels: growing noise in units of the data. The first is that of ``sde.t_min``,
        where it is given as more; the last should be about the largest distance between two
        examples. By default from the first to the last noise of the diffusion.
    :param inverse_temperatures: powers of the likelihood, from 1 down; by default 1 for all.
    :param num_replicas: K. Levels are laid in between where fewer are given; by default as many as
        are given, or 16. Even swaps are refused :math:`\Lambda \approx 0.8 \sqrt d \log(\sigma_K /
        \sigma_{mode})` times from end to end in d dimensions, and K of about 2 Λ is best.
    :param num_moves: steps of ``kernel`` between swaps.
    :param num_nodes: nodes of the integrals over noise, see above, which take most of the time.
        Of 16 levels from 0.02 to 93 with round modes of width 1, 4 nodes err by 0.001 nat and 8
        by 1e-6; with modes of widths 0.3 to 1.4, 0.09 and 0.005.
    :param adapt_levels: whether warm-up lays the levels anew; the first and the last stay.
    :raises TypeError: ``kernel`` is none that can move replicas.
    :raises ValueError: levels that are no ladder; at initialization, a ladder of equal levels.
    :raises ModelError: at initialization, for a block of ``Gibbs`` that has siblings: the replicas
        are draws for their old values.

    >>> import jax, jax.numpy as jnp, numpyro
    >>> from numpyro_score.distributions import DiffusionDistribution
    >>> from numpyro_score.infer import MALA, MCMC, ReplicaExchange
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.1, 20.0)
    >>> def energy(x, t):  # of two narrow modes at -5 and 5, of weights 1/5 and 4/5
    ...     var = 0.25 + sde.marginal_std(t) ** 2
    ...     parts = jnp.log(jnp.array([0.2, 0.8])) - 0.5 * (x - jnp.array([-5.0, 5.0])) ** 2 / var
    ...     return -jax.scipy.special.logsumexp(parts)
    >>> def model():
    ...     numpyro.sample("x", DiffusionDistribution(energy, sde, (1,)))
    >>> kernel = ReplicaExchange(MALA(model), num_replicas=8)
    >>> mcmc = MCMC(kernel, num_warmup=500, num_samples=5_000, progress_bar=False)
    >>> mcmc.run(jax.random.key(0))
    >>> abs((mcmc.get_samples()["x"] > 0).mean().item() - 0.8) < 0.05
    True
    """

    state_cls = ReplicaExchangeState

    def __init__(
        self,
        kernel: BlackJAXKernel,
        noise_levels: Sequence[float] | None = None,
        *,
        inverse_temperatures: Sequence[float] | None = None,
        num_replicas: int | None = None,
        num_moves: int = 5,
        num_nodes: int = 8,
        adapt_levels: bool = True,
    ) -> None:
        _check_kernel(kernel)
        super().__init__(kernel.model)
        check_int(num_moves, "num_moves", 1)
        check_int(num_nodes, "num_nodes", 2)
        if num_replicas is None:
            given = [
                levels for levels in (noise_levels, inverse_temperatures) if levels is not None
            ]
            num_replicas = max((len(levels) for levels in given if len(levels) > 2), default=16)
        check_int(num_replicas, "num_replicas", 2)
        self._kernel = kernel
        self._noise_levels = noise_levels
        self._inverse_temperatures = inverse_temperatures
        self._num_replicas = num_replicas
        self._num_moves = num_moves
        self._num_nodes = num_nodes
        self._adapt_levels = adapt_levels
        self._replicas: Replicas | None = None
        self._levels: Level | None = None
        self.bias = kernel.bias

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Collected at every step without being asked for."""
        return ("z", "diverging", "swap_accept_prob", "journeys.round_trips")

    # -- set-up ------------------------------------------------------------------------------

    def _prepare(self, rng_key: Array) -> None:
        self._kernel._prepare(rng_key)

    def _build_target(
        self, rng_key: Array, init_params: PyTree, model_args: tuple, model_kwargs: dict[str, Any]
    ) -> tuple[Target, PyTree]:
        model = self._model
        assert model is not None, "_check_kernel"
        if model_kwargs.get(GIBBS_SITES_KWARG):
            raise ModelError(
                "ReplicaExchange cannot be one of several blocks of Gibbs: replicas at the other "
                "levels are draws for the siblings' old values, and swaps would carry them into "
                "the posterior. Put all sites into ReplicaExchange, or take its kernel alone, "
                f"{type(self._kernel).__name__}(model), as the block."
            )
        self._levels = build_ladder(
            self._num_replicas,
            self._noise_levels,
            self._inverse_temperatures,
            latent_diffusions(model, model_args, model_kwargs),
        )
        mover = self._kernel.wrap_model(lambda _: LevelledModel(model, self._num_nodes))
        mover._num_warmup = self._num_warmup * self._num_moves
        self._replicas = Replicas(mover, self._num_replicas, self._num_moves)
        target, z = self._replicas.build_target(rng_key, init_params, model_args, model_kwargs)

        def potential_fn(args: tuple, kwargs: dict[str, Any] | None) -> LevelledPotential:
            return LevelledPotential(target.potential_fn, args, kwargs or {})

        return target._replace(potential_fn=potential_fn), z

    def _check_model(self, model_args: tuple, model_kwargs: dict[str, Any]) -> None:
        self._of_init().mover._check_model(model_args, model_kwargs)

    def _of_init(self) -> Replicas:
        if self._replicas is None:
            raise RuntimeError("ReplicaExchange.init must run first.")
        return self._replicas

    def _start(self, rng_key: Array, z: PyTree, potential_fn: Any) -> ReplicaExchangeState:
        assert self._levels is not None, "_build_target"
        levels = Level(*map(jnp.asarray, self._levels))
        rng_key, start_key = split_key(rng_key)
        replicas = self._of_init().start(start_key, z, levels, potential_fn)
        record = lambda _: new_record(self._num_replicas) | {"levels": levels}  # noqa: E731
        if not is_prng_key(rng_key):
            record = jax.vmap(record)
        return ReplicaExchangeState(
            i=jnp.zeros((), int),
            replicas=replicas,
            rng_key=rng_key,
            **posterior_fields(replicas),
            **record(rng_key),
        )

    # -- one step ----------------------------------------------------------------------------

    def _advance(self, state: ReplicaExchangeState, potential_fn: Any) -> ReplicaExchangeState:
        replicas = self._of_init()
        state = replicas.move(state, potential_fn)
        state = replicas.swap(state, potential_fn)
        if self._num_warmup:
            state = self._tune(state, potential_fn)
        return state._replace(i=state.i + 1, **posterior_fields(state.replicas))

    def _tune(self, state: ReplicaExchangeState, potential_fn: Any) -> ReplicaExchangeState:
        step = state.i + 1
        as_it_is = lambda state: state  # noqa: E731
        if self._adapt_levels:
            when = jnp.array([int(part * self._num_warmup) for part in _RETUNE])
            lay = partial(self._of_init().lay_levels, potential_fn=potential_fn)
            state = jax.lax.cond(jnp.any(step == when), lay, as_it_is, state)
        return jax.lax.cond(step == self._num_warmup, forget, as_it_is, state)

    def refresh(
        self,
        state: ReplicaExchangeState,
        model_args: tuple,
        model_kwargs: dict[str, Any] | None,
    ) -> ReplicaExchangeState:
        """Return ``state`` with the potential and score of its positions under new arguments."""
        potential_fn: Any = self._initialized().potential_fn(model_args, model_kwargs)
        state = self._of_init().evaluate(state, potential_fn)
        return state._replace(**posterior_fields(state.replicas))

    # -- the rest ----------------------------------------------------------------------------

    def wrap_model(self, wrapper: Callable[..., Any]) -> ReplicaExchange:
        """Return a copy of this kernel whose model is ``wrapper(self.model)``."""
        kernel = super().wrap_model(wrapper)
        kernel._kernel = self._kernel.wrap_model(wrapper)
        return kernel

    def get_diagnostics_str(self, state: ReplicaExchangeState) -> str:
        """Return what the progress bar says of one chain."""
        worst = jnp.min(state.mean_swap_accept_prob)
        return f"least swap prob={worst:.2f}. round trips={state.journeys.round_trips}"

    def remarks(self, state: ReplicaExchangeState) -> list[str]:
        """Return what is wrong with the swaps and moves of a run that ended in ``state``."""
        return remarks(state)

    def _describe(self) -> list[str]:
        return [f"{self._num_replicas} replicas", repr(self._kernel)]

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_replicas": None, "_levels": None}


def _check_kernel(kernel: Any) -> None:
    if isinstance(kernel, type) or not isinstance(kernel, BlackJAXKernel):
        raise TypeError(
            "ReplicaExchange moves its replicas by a kernel of numpyro_score.infer that was made "
            f"with a model, such as MALA(model); got {kernel!r}."
        )
    if isinstance(kernel, (Exchange, StochasticGradientKernel, ReplicaExchange)):
        raise TypeError(
            f"{type(kernel).__name__} cannot move replicas, whose log densities are compared: use "
            "a kernel such as MALA, Barker, HMC or NUTS."
        )
    if kernel.model is None:
        raise ValueError(
            "ReplicaExchange needs a kernel with a model: levels of noise are those of its sites."
        )
