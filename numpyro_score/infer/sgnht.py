"""SGNHT: underdamped dynamics on minibatches whose friction finds itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.sgmcmc import sgnht
from numpyro.infer import init_to_uniform

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._friction import check_friction, excess_noise
from numpyro_score.infer._minibatch import Control, Estimate
from numpyro_score.infer._step_size import Schedule, StepSize
from numpyro_score.infer.registry import register_kernel
from numpyro_score.infer.stochastic import Move, StochasticGradientKernel


class SGNHTState(NamedTuple):
    """State of :class:`SGNHT`: the fields of :class:`SGLDState`, and two of its own.

    - **noise_ratio** - ε (V − β) / 2α, as for :class:`SGHMC`. Here it is no bias: ξ takes it up.
    - **momentum** - flat, kept from step to step.
    - **xi** - the thermostat ξ; near α (1 + ``noise_ratio``) at a small ε, once it has settled.
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
    momentum: Array
    xi: Array


@register_kernel(
    "sgnht",
    description="Thermostat that takes up the noise of minibatches: biased",
    needs=("gradient", "minibatches"),
    reference="Ding et al. (2014)",
)
class SGNHT(StochasticGradientKernel):
    r"""Stochastic gradient Nosé-Hoover thermostat, BlackJAX's ``sgnht``: **biased**.

    .. math::

        z' = z + \varepsilon p, \qquad
        p' = (1 - \xi\varepsilon) p + \varepsilon \hat g(z)
        + \sqrt{\varepsilon (2\alpha - \varepsilon\beta)} \, \eta, \qquad
        \xi' = \xi + \varepsilon (\lVert p' \rVert^2 / d - 1).

    The friction ξ rises while the momenta are too hot, so noise of unknown but equal variance V in
    all coordinates is taken up by it: :math:`\operatorname{E} \xi \to \alpha + \varepsilon (V -
    \beta) / 2`, and the posterior is right up to the integrator's :math:`O(\varepsilon)`. Where V
    differs between coordinates one ξ cannot serve them all, and those with more noise come out
    too wide; the spread of ``gradient_variance`` tells.

    **Choice.** ε like a leapfrog step, a tenth of the smallest posterior standard deviation; α of
    the order of one over that deviation. ξ cannot fall faster than by ε a step, and a chain that
    rolls in from far away heats it up: start near the posterior
    (``init_strategy=init_to_value(...)``). It settles in about α / ε steps, and its inertia suits a
    posterior of standard deviation near 1: rescale parameters that are far from it.

    **References:** Ding, Fang, Babbush, Chen, Skeel & Neven (2014), "Bayesian sampling using
    stochastic gradient thermostats".

    :param model: as for :class:`SGLD`.
    :param step_size: ε, or a function of the step counter.
    :param alpha: α, the noise that is added, and the thermostat's start.
    :param beta: the variance of the minibatches' gradient that is taken to be known.
    :param control_variate: as for :class:`SGLD`.
    :param init_strategy: where chains start, see NumPyro's init strategies.
    :param potential_fn: refused: a potential has no plates.
    :raises ValueError: for a step size or α that is not above 0, a negative β, and where
        :math:`\varepsilon\beta > 2\alpha`, which leaves a negative variance.
    :raises ModelError: as for :class:`SGLD`.

    >>> from numpyro_score.infer import SGNHT
    >>> print(SGNHT(lambda: None, step_size=1e-3, alpha=30.0, control_variate="map"))
    SGNHT(<lambda>, control variates, biased: no Metropolis test)
    """

    state_cls = SGNHTState

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        *,
        step_size: float | Schedule,
        alpha: float,
        beta: float = 0.0,
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
        check_friction(alpha, beta, self._first_step_size)
        self._alpha, self._beta = alpha, beta

    def _initial_carry(self, rng_key: Array, z: Array) -> dict[str, Array]:
        start = sgnht.init(z, rng_key, jnp.asarray(self._alpha, z.dtype))
        return {"momentum": start.momentum, "xi": start.xi}

    def _move(
        self,
        rng_key: Array,
        z: Array,
        state: SGNHTState,
        step_size: Array,
        evaluate: Callable[[Array, Array], Estimate],
    ) -> Move:
        noise_key, batch_key = jax.random.split(rng_key)
        step = sgnht.build_kernel(self._alpha, self._beta)
        start = sgnht.SGNHTState(z, state.momentum, state.xi)
        new = step(noise_key, start, lambda *_: state.score, None, step_size)
        carry = {"momentum": new.momentum, "xi": new.xi}
        return Move(new.position, evaluate(batch_key, new.position), carry)

    def _noise_ratio(self, variance: Array, step_size: Array) -> Array:
        return excess_noise(variance, step_size, self._alpha, self._beta)
