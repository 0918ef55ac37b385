"""The exchange algorithm: posteriors in which a normalizer that nobody knows does not cancel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from blackjax.mcmc import random_walk
from numpyro.infer import init_to_uniform
from numpyro.infer.gibbs import GIBBS_SITES_KWARG

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._auxiliary import Auxiliary, ExchangePath, ExchangeTarget, Sampler
from numpyro_score.infer._auxiliary_checks import check_dependence, check_sites
from numpyro_score.infer._state import MetropolisState
from numpyro_score.infer._target import Target, model_target
from numpyro_score.infer._transition import Origin, Transition
from numpyro_score.infer.model_checks import prototype_trace
from numpyro_score.infer.preconditioned import PreconditionedKernel
from numpyro_score.infer.registry import register_kernel


@register_kernel(
    "exchange",
    description="Random walk with auxiliary data, for a likelihood whose Z is unknown",
    needs=("tuning",),
    reference="Murray, Ghahramani & MacKay (2006)",
)
class Exchange(PreconditionedKernel):
    r"""The exchange algorithm, for observed sites whose unknown Z depends on latent ones.

    The data have the density :math:`\tilde p(y \mid \theta) / Z(\theta)`, of which only
    :math:`\tilde p` is known: an :class:`EnergyDistribution` whose condition, or network, depends
    on a latent site. All other kernels refuse such a model. A step proposes
    :math:`z' = z + \varepsilon L \xi` in unconstrained space, with :math:`L L^\top` the
    ``inverse_mass_matrix``, draws auxiliary data :math:`x \sim p(x \mid \theta')` in the shape of
    ``y``, and accepts with probability

    .. math:: \min\left(1, \frac{\tilde p(z', y)}{\tilde p(z, y)}
        \frac{\tilde p(x \mid \theta)}{\tilde p(x \mid \theta')}\right),

    in which :math:`Z(\theta)` and :math:`Z(\theta')` occur above and below. The test itself is
    BlackJAX's ``random_walk``. It takes one evaluation of the model and one set of auxiliary data a
    step, and no gradient; the metric is learned from draws alone.

    *Exact* where the auxiliary data are, by ``samplers``. Without them each site draws by the
    ``sampler=Langevin(...)`` of its own distribution: a run of finite length, which makes this the
    double Metropolis-Hastings algorithm of Liang (2010), **biased** by as much as these runs fall
    short of the density. Nothing in the output tells how much: double ``num_steps``, and what
    matters must not change.

    *Use it* where Z(θ) is unknown, parameters are few (this is a random walk), and data can be
    drawn at given parameters. *Do not* where Z(θ) is known or can be tabulated: give
    ``log_normalizer=`` and take :class:`MALA`. Data that say much about θ make auxiliary data say
    much as well: steps, or the acceptance, get smaller than those of a random walk that knows Z. A
    model without such a site is sampled by a plain random walk.

    **References:** Murray, Ghahramani & MacKay (2006), "MCMC for doubly-intractable distributions";
    Liang (2010), "A double Metropolis-Hastings sampler for spatial models with intractable
    normalizing constants".

    :param model: NumPyro model. There is no ``potential_fn``: data are drawn from the model.
    :param samplers: for each observed site whose normalizer depends on a latent one, a function
        ``fn(rng_key, distribution)`` that returns exact draws of ``distribution.shape()``, and that
        ``jit`` can trace; ``distribution`` is that of the site at the proposed values, in the
        shape of the data (a plate wraps it: ``distribution.base_dist.condition``).
    :param step_size: ε where the search starts, or the value to use without adaptation.
    :param inverse_mass_matrix: metric to start with: variances ``(d,)`` or a covariance
        ``(d, d)`` of the unconstrained parameters, sites in alphabetical order.
    :param adapt_step_size: whether warm-up tunes the step size.
    :param adapt_mass_matrix: whether warm-up tunes the metric.
    :param dense_mass: whether the metric is a full matrix.
    :param target_accept_prob: mean acceptance that the step size is tuned to.
    :param init_strategy: where chains start, see NumPyro's init strategies.
    :param adaptation: ``"per-chain"`` or ``"pooled"``, see :class:`MALA`.
    :raises TypeError: for a model or a sampler that is not callable.
    :raises ValueError: for arguments out of range; at initialization for ``samplers`` of other
        sites, or with draws of the wrong shape.
    :raises DoublyIntractableError: at initialization, where the normalizer of a *latent* site
        depends on other sites, or that of an observed one on a parameter, by a mask, scale or
        support, or inside a mixture.
    :raises ModelError: for a site without a sampler, or under ``handlers.scale``.

    A draw that is not finite, as of a Langevin run that got lost, refuses the proposal and counts
    as ``diverging``.

    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.distributions import EnergyDistribution
    >>> from numpyro_score.infer import Exchange
    >>> def model(y):
    ...     rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    ...     energy = lambda y, rate: rate * y
    ...     waiting_time = EnergyDistribution(  # Z = 1 / rate, if one did not know
    ...         energy, (), condition=rate, condition_event_dim=0, support=dist.constraints.positive
    ...     )
    ...     with numpyro.plate("rows", len(y)):
    ...         numpyro.sample("y", waiting_time, obs=y)
    >>> def draw(rng_key, distribution):
    ...     rate = distribution.base_dist.condition
    ...     return jax.random.exponential(rng_key, distribution.shape()) / rate
    >>> kernel = Exchange(model, samplers={"y": draw})
    >>> mcmc = MCMC(kernel, num_warmup=500, num_samples=4000, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jnp.ones(20))
    >>> abs(mcmc.get_samples()["rate"].mean().item() - 22 / 21) < 0.1
    True
    """

    state_cls = MetropolisState
    has_score = False

    def __init__(
        self,
        model: Callable[..., Any],
        samplers: Mapping[str, Sampler] | None = None,
        step_size: float = 1.0,
        inverse_mass_matrix: Array | None = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool = False,
        target_accept_prob: float = 0.234,
        init_strategy: Callable[..., Any] = init_to_uniform,
        *,
        adaptation: Literal["per-chain", "pooled"] = "per-chain",
    ) -> None:
        if not callable(model):
            raise TypeError(f"Exchange needs a NumPyro model to draw data from, got {model!r}.")
        super().__init__(
            model,
            None,
            step_size,
            inverse_mass_matrix,
            adapt_step_size,
            adapt_mass_matrix,
            dense_mass,
            target_accept_prob,
            init_strategy,
            adaptation=adaptation,
        )
        self._samplers = _checked(samplers)
        self._path = ExchangePath()
        self._sites: tuple[str, ...] = ()
        if not self._samplers:
            self.bias = "auxiliary data by finite Langevin runs"

    def _build_target(
        self, rng_key: Array, init_params: PyTree, model_args: tuple, model_kwargs: dict[str, Any]
    ) -> tuple[Target, PyTree]:
        elsewhere = frozenset(model_kwargs.get(GIBBS_SITES_KWARG, {}))
        sites = set()

        def admit(site: str, field: str, labels: frozenset[str], trace: dict[str, Any]) -> None:
            check_dependence(site, field, labels, trace, elsewhere)
            sites.add(site)

        assert self._model is not None, "__init__"
        target = model_target(
            rng_key,
            self._model,
            self._init_strategy,
            init_params,
            model_args,
            model_kwargs,
            on_dependence=admit,
        )
        self._sites = tuple(sorted(sites))
        return target

    def _check_model(self, model_args: tuple, model_kwargs: dict[str, Any]) -> None:
        assert self._model is not None, "__init__"
        trace = prototype_trace(self._model, model_args, model_kwargs)
        check_sites(trace, self._sites, self._samplers)
        auxiliary = self._auxiliary(model_args, model_kwargs)
        latent = {
            name: site["value"]
            for name, site in trace.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        # Without numbers: a sampler that is missing, or wrong, is told of before the first step.
        jax.eval_shape(auxiliary.log_ratio, jax.random.key(0), latent, latent)

    def _auxiliary(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Auxiliary:
        assert self._model is not None, "__init__"
        return Auxiliary(self._model, model_args, model_kwargs or {}, self._sites, self._samplers)

    def _stepped_on(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> ExchangeTarget:
        """Return the potential without log Z of the sites whose Z is not known."""
        target = self._initialized()
        return ExchangeTarget(
            target.potential_fn(model_args, model_kwargs),
            target.constrain_fn(model_args, model_kwargs),
            self._auxiliary(model_args, model_kwargs),
        )

    def _step(self, state: Any, potential_fn: Any, in_warmup: Array) -> tuple[Any, Transition]:
        rng_key, draw_key = jax.random.split(state.rng_key)
        potential_fn = dataclasses.replace(potential_fn, draw_key=draw_key)
        return super()._step(state._replace(rng_key=rng_key), potential_fn, in_warmup)

    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        walk_key, accept_key = jax.random.split(rng_key)
        size, dtype = origin.score.shape, origin.score.dtype
        proposal = step_size * jax.random.normal(walk_key, size, dtype)
        # Here and not by BlackJAX, which does not say what it found at a proposal it refused.
        logdensity = logdensity_fn(proposal)
        start = random_walk.RWState(jnp.zeros_like(proposal), origin.logdensity)
        state, info = random_walk.build_rmh()(
            accept_key, start, lambda v: logdensity, lambda rng_key, v: proposal
        )
        return Transition(
            step=state.position,
            logdensity=state.logdensity,
            score=origin.score,
            accept_prob=info.acceptance_rate,
            moved=info.is_accepted,
            diverging=~jnp.isfinite(logdensity),
            statistic=info.acceptance_rate,
        )

    def __getstate__(self) -> dict[str, Any]:
        # `init` finds the sites again: they are no option.
        return super().__getstate__() | {"_sites": ()}


def _checked(samplers: Mapping[str, Sampler] | None) -> dict[str, Sampler]:
    if samplers is None:
        return {}
    if not isinstance(samplers, Mapping):
        raise TypeError(
            "samplers must map the names of observed sites to functions fn(rng_key, distribution), "
            f"got {type(samplers).__name__}."
        )
    for name, sampler in samplers.items():
        if not callable(sampler):
            raise TypeError(
                f"samplers[{name!r}] must be a function fn(rng_key, distribution), got {sampler!r}."
            )
    return dict(samplers)
