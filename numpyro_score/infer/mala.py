"""MALA: the Langevin step as a proposal, with a Metropolis-Hastings test."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from blackjax.mcmc import mala

from numpyro_score._typing import Array
from numpyro_score.infer._state import MetropolisState
from numpyro_score.infer._transition import Origin, Transition
from numpyro_score.infer.preconditioned import PreconditionedKernel
from numpyro_score.infer.registry import register_kernel


@register_kernel(
    "mala",
    description="Langevin step with a Metropolis test: one gradient a step, exact",
    needs=("gradient", "tuning"),
    reference="Roberts & Tweedie (1996)",
)
class MALA(PreconditionedKernel):
    r"""Metropolis-adjusted Langevin algorithm: BlackJAX's ``mala`` for ``numpyro.infer.MCMC``.

    The proposal is :math:`z' = z + \varepsilon \Sigma \nabla \log p(z) + \sqrt{2\varepsilon} L \xi`
    with :math:`\Sigma = L L^\top` the ``inverse_mass_matrix``. One gradient a step. HMC with one
    leapfrog step of size h is the same kernel at :math:`\varepsilon = h^2 / 2`.

    Warm-up tunes the step size by dual averaging and the metric from draws and scores together,
    in windows that fill its first three quarters; a dense metric pays where parameters are
    correlated, and costs two triangular products a step.

    **References:** Besag (1994), discussion of Grenander & Miller; Roberts & Tweedie (1996),
    "Exponential convergence of Langevin distributions and their discrete approximations"; Roberts
    & Rosenthal (1998), "Optimal scaling of discrete approximations to Langevin diffusions", for the
    target acceptance of 0.574.

    :param model: NumPyro model. Give this or ``potential_fn``.
    :param potential_fn: potential energy of one position, any pytree of floating-point arrays;
        ``MCMC.run`` then needs ``init_params``.
    :param step_size: ε where the search starts, or the value to use without adaptation.
    :param inverse_mass_matrix: metric to start with: variances ``(d,)`` or a covariance
        ``(d, d)`` of the unconstrained parameters, sites in alphabetical order.
    :param adapt_step_size: whether warm-up tunes the step size.
    :param adapt_mass_matrix: whether warm-up tunes the metric.
    :param dense_mass: whether the metric is a full matrix.
    :param target_accept_prob: mean acceptance that the step size is tuned to.
    :param init_strategy: where chains start, see NumPyro's init strategies.
    :param max_rank: for a metric of standard deviations and at most so many directions that are
        longer or shorter, in place of a dense one: 2 d ``max_rank`` products a step, and a warm-up
        that grows with the rank rather than with d. ``adapt_state.inverse_mass_matrix`` is then
        BlackJAX's ``LowRankInverseMassMatrix``.
    :param adaptation: ``"per-chain"``, or ``"pooled"``: all chains of ``chain_method="vectorized"``
        share one step size and one metric, estimated from all of them, which takes a fraction of
        the warm-up. During sampling both are fixed, so R-hat means what it does otherwise.
    :param path: how the log ratio of a proposal is found at a site known by its score
        (:class:`ScoreDistribution`). ``"anchored"``: from the log density that such a site has, 16
        evaluations of its network a step; exact for that density, whatever the field. ``"local"``:
        by an integral of the score from where the chain is to the proposal, one or two evaluations
        a step, for fields that are gradients: a relative curl above 0.03 is refused. It has a bias
        that no diagnostic tells where modes lie apart, which falls with the step size and with
        ``path_nodes``. At an acceptance of 0.57, a mode of weight 0.214 four standard deviations
        from one of the same width comes out at 0.450 with 2 nodes and 0.213 with 3; three from
        one of half its width, at an acceptance of 0.53, at 0.718 with 2, 0.278 with 3, 0.228 with
        5 and 0.214 with 7. ``potential_energy`` is then that of the sites that have a density.
    :param path_nodes: nodes of the integral of ``path="local"``, both ends included, for
        ``path_nodes - 1`` evaluations a step: 2 for the trapezoid rule, 3 (the default) for
        Simpson's.
    :raises ValueError: for arguments out of range, and at initialization for a model that cannot
        be sampled (:func:`check_model`).

    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.infer import MALA
    >>> def model(y):
    ...     mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    ...     numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> mcmc = MCMC(MALA(model), num_warmup=300, num_samples=1000, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jnp.array([1.9, 2.0, 2.1]), extra_fields=("accept_prob",))
    >>> abs(mcmc.get_samples()["mu"].mean().item() - 2.0) < 0.2
    True
    """

    state_cls = MetropolisState
    two_points = True

    def _transition(
        self,
        rng_key: Array,
        logdensity_fn: Callable[[Array], Array],
        origin: Origin,
        step_size: Array,
        in_warmup: Array,
    ) -> Transition:
        start = mala.MALAState(jnp.zeros_like(origin.score), origin.logdensity, origin.score)
        state, info = mala.build_kernel()(rng_key, start, logdensity_fn, step_size)
        return Transition(
            step=state.position,
            logdensity=state.logdensity,
            score=state.logdensity_grad,
            accept_prob=info.acceptance_rate,
            moved=info.is_accepted,
            diverging=info.acceptance_rate == 0,
            statistic=info.acceptance_rate,
        )
