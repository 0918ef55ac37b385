"""SGHMC: underdamped Langevin dynamics on minibatches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from blackjax.sgmcmc import diffusions
from blackjax.util import generate_gaussian_noise
from numpyro.infer import init_to_uniform

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._friction import check_friction, excess_noise
from numpyro_score.infer._minibatch import Control, Estimate
from numpyro_score.infer._step_size import Schedule, StepSize
from numpyro_score.infer.registry import register_kernel
from numpyro_score.infer.stochastic import Move, StochasticGradientKernel


class SGHMCState(NamedTuple):
    """State of :class:`SGHMC`: the fields of :class:`SGLDState`.

    - **noise_ratio** - ε (V − β) / 2α: the variance that minibatches add to a momentum beyond β,
      over that of the noise that belongs to the friction.
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
    "sghmc",
    description="Hamiltonian trajectory with friction on minibatches: biased",
    needs=("gradient", "minibatches"),
    reference="Chen, Fox & Guestrin (2014)",
)
class SGHMC(StochasticGradientKernel):
    r"""Stochastic gradient Hamiltonian Monte Carlo, BlackJAX's ``sghmc`` diffusion: **biased**.

    A step draws a momentum :math:`p \sim N(0, I)` and then takes ``num_integration_steps`` times

    .. math::

        z' = z + \varepsilon p, \qquad
        p' = (1 - \alpha\varepsilon) p + \varepsilon \hat g(z)
        + \sqrt{\varepsilon (2\alpha - \varepsilon\beta)} \, \xi,

    each with a fresh minibatch, as in the paper. (BlackJAX's own ``sghmc`` kernel keeps one
    minibatch for the whole step; its noise is then the same push again and again, and adds up
    to ``num_integration_steps`` times as much variance. Therefore its integrator is used here, and
    not its kernel.)

    **Bias.** No Metropolis test. Minibatches whose gradient has the variance V add
    :math:`\varepsilon^2 V` to the variance of each momentum. :math:`\beta` says how much of V is
    known, and takes it away from :math:`\xi`: at :math:`\beta = V` nothing is left of it. The state
    reports what is left, ``noise_ratio`` = :math:`\varepsilon (V - \beta) / 2\alpha`, in the
    coordinate where it is largest; the fresh momenta damp it too, so the bias of a short trajectory
    is smaller than that. What is O(ε) in the integrator remains.

    **Choice.** ε like a leapfrog step, a tenth of the smallest posterior standard deviation; the
    friction α of the order of one over that deviation, larger where ``noise_ratio`` is.

    **References:** Chen, Fox & Guestrin (2014), "Stochastic gradient Hamiltonian Monte Carlo"; Ma,
    Chen & Fox (2015), "A complete recipe for stochastic gradient MCMC", for α and β.

    :param model: as for :class:`SGLD`.
    :param step_size: ε, or a function of the step counter; constant within a step.
    :param alpha: friction α, per unit of time.
    :param beta: the variance of the minibatches' gradient that is taken to be known.
    :param num_integration_steps: gradients a step.
    :param control_variate: as for :class:`SGLD`.
    :param init_strategy: where chains start, see NumPyro's init strategies.
    :param potential_fn: refused: a potential has no plates.
    :raises ValueError: for a step size or friction that is not above 0, a negative β, and where
        :math:`\varepsilon\beta > 2\alpha`, which leaves a negative variance.
    :raises ModelError: as for :class:`SGLD`.

    >>> from numpyro_score.infer import SGHMC
    >>> print(SGHMC(lambda: None, step_size=1e-3, alpha=30.0))
    SGHMC(<lambda>, 10 integration steps, biased: no Metropolis test)
    """

    state_cls = SGHMCState

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        *,
        step_size: float | Schedule,
        alpha: float,
        beta: float = 0.0,
        num_integration_steps: int = 10,
        control_variate: Any = None,
        init_strategy: Callable[..., Any] = init_to_uniform,
        potential_fn: None = None,
    ) -> None:
        super().__init__(
            model,
            step_size=step_size,
            control_variate=control_variate,
            init_strategy=init_strategy,
            potential_fn=potential_fn,
        )
        check_int(num_integration_steps, "num_integration_steps", 1)
        check_friction(alpha, beta, self._first_step_size)
        self._alpha, self._beta = alpha, beta
        self._num_integration_steps = num_integration_steps

    def _move(
        self,
        rng_key: Array,
        z: Array,
        state: SGHMCState,
        step_size: Array,
        evaluate: Callable[[Array, Array], Estimate],
    ) -> Move:
        integrate = diffusions.sghmc(self._alpha, self._beta)
        momentum_key, steps_key = jax.random.split(rng_key)

        def one_step(carry: tuple, keys: Array) -> tuple[tuple, None]:
            z, momentum, here = carry
            z, momentum = integrate(keys[0], z, momentum, here.score, step_size)
            return (z, momentum, evaluate(keys[1], z)), None

        start = (
            z,
            generate_gaussian_noise(momentum_key, z),
            Estimate(-state.potential_energy, state.score),
        )
        keys = jax.vmap(jax.random.split)(jax.random.split(steps_key, self._num_integration_steps))
        (z, _, here), _ = jax.lax.scan(one_step, start, keys)
        return Move(z, here)

    def _noise_ratio(self, variance: Array, step_size: Array) -> Array:
        return excess_noise(variance, step_size, self._alpha, self._beta)

    def _describe(self) -> list[str]:
        return [f"{self._num_integration_steps} integration steps", *super()._describe()]
