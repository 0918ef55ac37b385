"""SGLD: Langevin dynamics on minibatches, biased by its step size and by their noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
from blackjax.sgmcmc import sgld

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._minibatch import Control, Estimate
from numpyro_score.infer._step_size import StepSize
from numpyro_score.infer.registry import register_kernel
from numpyro_score.infer.stochastic import Move, StochasticGradientKernel


class SGLDState(NamedTuple):
    """State of :class:`SGLD`.

    - **i** - steps so far, warm-up included; the schedule's argument.
    - **z** - unconstrained values at the latent sites.
    - **potential_energy** - estimate of the potential energy at ``z`` from one minibatch: unbiased,
      but noisy. Do not compare models by it.
    - **score** - estimate of the gradient of the log density at ``z``, flat; for the next step.
    - **gradient_variance** - variance of ``score`` over minibatches, per coordinate: its mean since
      the start of warm-up, or of sampling.
    - **noise_ratio** - variance that the minibatches add to a step, over that of its own noise,
      in the coordinate where it is largest.
    - **diverging** - whether the last step led to where something was not finite; the chain stayed.
    - **adapt_state** - ``step_size`` of the last step.
    - **control** - centre of the control variates and what all data say there, or None.
    - **rng_key** - key of the next step.
    """

    i: Array
    z: PyTree
    potential_energy: Array
    score: Array
    gradient_variance: Array
    noise_ratio: Array
    diverging: Array
    adapt_state: StepSize
    control: Control | None
    rng_key: Array


@register_kernel(
    "sgld",
    description="Langevin step on minibatches: biased by its step size and their noise",
    needs=("gradient", "minibatches"),
    reference="Welling & Teh (2011)",
)
class SGLD(StochasticGradientKernel):
    r"""Stochastic gradient Langevin dynamics, BlackJAX's ``sgld``: **biased**.

    :math:`z' = z + \varepsilon \hat g(z) + \sqrt{2\varepsilon} \xi`, always taken, where
    :math:`\hat g` estimates :math:`\nabla \log p(z)` from a minibatch: at each step every
    ``numpyro.plate(name, N, subsample_size=B)`` draws fresh rows without replacement, and NumPyro
    scales their log density by N / B, which makes the estimate unbiased. One gradient a step, on B
    rows; every twentieth step has a second one, for ``noise_ratio``.

    **Bias.** There is no Metropolis test. With :math:`V` the variance of :math:`\hat g`, a Gaussian
    posterior of precision :math:`A` is sampled with the variance

    .. math:: \frac{1}{A} \cdot \frac{1 + \varepsilon V / 2}{1 - \varepsilon A / 2},

    and the right mean, whatever R-hat says. The state reports :math:`\varepsilon V / 2`, the excess
    that is due to the minibatches, as ``noise_ratio`` (its largest coordinate). Below 0.1 it is
    harmless; from 1 on the draws are noise of the minibatches more than they are the posterior: use
    a smaller step, larger minibatches or control variates.

    **Step size.** Nothing is tuned: warm-up only lets the chain find the posterior. Start at a
    tenth of the smallest posterior variance, about 0.1 / N for parameters that all rows inform.
    With a schedule :math:`\varepsilon_i \to 0` the bias vanishes, and so does the movement.

    **Control variates** (Baker et al., 2019): :math:`g(c) + \hat g(z) - \hat g(c)` with both
    estimates from the same rows. Still unbiased for any centre c, and of small variance near it;
    worse than without them far from it, so start there (``init_strategy=init_to_value(...)``).
    Two gradients a step. A chain that goes on with other data (``post_warmup_state``) keeps the
    centre; that g(c) is out of date is noticed by the first rows, which are looked at again in
    every twentieth step. Where those stay and later rows change, call :meth:`refresh`.

    **References:** Welling & Teh (2011), "Bayesian learning via stochastic gradient Langevin
    dynamics"; Vollmer, Zygalakis & Teh (2016), "Exploration of the (non-)asymptotic bias and
    variance of stochastic gradient Langevin dynamics"; Baker, Fearnhead, Fox & Nemeth (2019),
    "Control variates for stochastic gradient MCMC".

    :param model: NumPyro model with at least one plate that subsamples. Latent sites lie outside
        such plates. ``chain_method="vectorized"``: each chain draws its own minibatches.
    :param step_size: ε, or a function of the step counter (warm-up included), such as an optax
        schedule. A step whose ε is NaN or negative is ``diverging``; at 0 the chain stands still.
    :param control_variate: None; ``"map"`` for the mode, found by L-BFGS on all data when the
        kernel is initialized; or the centre itself, a constrained value for each latent site.
    :param init_strategy: where chains start, see NumPyro's init strategies.
    :param potential_fn: refused: a potential has no plates.
    :raises ValueError: for a step size (or first step size of a schedule) that is not above 0.
    :raises ModelError: (from ``MCMC.run``) for a model without a plate that subsamples, with a
        latent or deterministic site in one, or that :func:`check_model` refuses.

    >>> import jax, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.infer import SGLD
    >>> y = 3.0 + jax.random.normal(jax.random.key(0), (1000,))
    >>> def model(y):
    ...     loc = numpyro.sample("loc", dist.Normal(0.0, 10.0))
    ...     with numpyro.plate("rows", len(y), subsample_size=100) as rows:
    ...         numpyro.sample("y", dist.Normal(loc, 1.0), obs=y[rows])
    >>> kernel = SGLD(model, step_size=1e-5)
    >>> print(kernel)
    SGLD(model, biased: no Metropolis test)
    >>> mcmc = MCMC(kernel, num_warmup=500, num_samples=500, progress_bar=False)
    >>> mcmc.run(jax.random.key(1), y)
    >>> abs(mcmc.get_samples()["loc"].mean() - y.mean()).item() < 0.05
    True
    """

    state_cls = SGLDState

    def _move(
        self,
        rng_key: Array,
        z: Array,
        state: SGLDState,
        step_size: Array,
        evaluate: Callable[[Array, Array], Estimate],
    ) -> Move:
        noise_key, batch_key = jax.random.split(rng_key)
        new = sgld.build_kernel()(noise_key, z, lambda *_: state.score, None, step_size)
        return Move(new, evaluate(batch_key, new))

    def _noise_ratio(self, variance: Array, step_size: Array) -> Array:
        return step_size * variance / 2
