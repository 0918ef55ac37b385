"""Langevin dynamics as a pure function of a log density.

x ← x + ε s(x) + √(2ε) ξ, with or without a Metropolis-Hastings test. Roberts & Tweedie (1996),
"Exponential convergence of Langevin distributions and their discrete approximations".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.mcmc.diffusions import overdamped_langevin
from numpyro.distributions.transforms import Transform

from numpyro_score._checks import check_int, check_positive
from numpyro_score._typing import Array, Shape

# At the acceptance that is tuned to, so many refusals in a row happen once in 10⁷ runs.
_ENOUGH_TO_TELL = 20


def langevin(
    rng_key: Array,
    logdensity_fn: Callable[[Array], Array],
    position: Array,
    *,
    step_size: Array | float,
    num_steps: int,
    metropolis: bool = True,
) -> Array:
    """Return where a Langevin chain is after ``num_steps`` steps.

    :param rng_key: a random key.
    :param logdensity_fn: log density of one position, up to a constant.
    :param position: where to start, of any shape.
    :param step_size: ε above, in squared units of ``position``.
    :param num_steps: steps to take, one gradient each.
    :param metropolis: whether each step is tested (MALA, no bias from ε). Without the test (ULA)
        the chain tends to a density that is off by O(ε).
    :return: the last position.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.samplers import langevin
    >>> keys = jax.random.split(jax.random.key(0), 1000)
    >>> run = lambda key: langevin(key, lambda x: -0.5 * (x - 3) ** 2, jnp.zeros(()),
    ...                            step_size=0.5, num_steps=50)
    >>> abs(jax.vmap(run)(keys).mean().item() - 3) < 0.2
    True
    """
    check_positive(step_size, "step_size")
    check_int(num_steps, "num_steps", 0)
    if metropolis:
        kernel = blackjax.mala.build_kernel()

        def step(state, key):
            return kernel(key, state, logdensity_fn, step_size)[0], None
    else:
        integrate = overdamped_langevin(jax.value_and_grad(logdensity_fn))

        def step(state, key):
            return blackjax.mcmc.mala.MALAState(*integrate(key, state, step_size)), None

    state = blackjax.mala.init(position, logdensity_fn)
    state, _ = jax.lax.scan(step, state, jax.random.split(rng_key, num_steps))
    return state.position


def tune_step_size(
    rng_key: Array,
    logdensity_fn: Callable[[Array], Array],
    position: Array,
    *,
    step_size: float,
    num_steps: int,
    target_accept_prob: float = 0.574,
) -> tuple[Array, Array]:
    """Return where ``num_steps`` tested Langevin steps lead, and the step size they were tuned to.

    Dual averaging (Hoffman & Gelman, 2014, section 3.2) of the acceptance probability.

    :param rng_key: a random key.
    :param logdensity_fn: log density of one position, up to a constant.
    :param position: where to start, of any shape.
    :param step_size: where the search starts.
    :param num_steps: steps to take; with 0 nothing is changed.
    :param target_accept_prob: mean acceptance to tune to.
    :return: the last position, and ε.

    >>> import jax, jax.numpy as jnp
    >>> narrow = lambda x: -0.5 * jnp.sum((x / 0.01) ** 2)
    >>> _, step_size = tune_step_size(
    ...     jax.random.key(0), narrow, jnp.ones(3), step_size=0.1, num_steps=300
    ... )
    >>> 1e-5 < step_size < 1e-3
    Array(True, dtype=bool)
    """
    if num_steps == 0:
        return position, jnp.asarray(step_size, jnp.result_type(float))
    init, update, final = dual_averaging_adaptation(target_accept_prob)
    kernel = blackjax.mala.build_kernel()

    def step(carry, key):
        state, average = carry
        state, info = kernel(key, state, logdensity_fn, jnp.exp(average.log_step_size))
        return (state, update(average, info.acceptance_rate)), None

    average = jax.tree.map(jnp.asarray, init(jnp.asarray(step_size, jnp.result_type(float))))
    start = (blackjax.mala.init(position, logdensity_fn), average)
    (state, average), _ = jax.lax.scan(step, start, jax.random.split(rng_key, num_steps))
    return state.position, final(average)


@dataclass(frozen=True)
class Langevin:
    """Sampler that lets a learned distribution draw by a short Langevin run.

    Each draw is an own chain. It starts at a draw of the density that the network tilts (see
    :class:`~numpyro_score.networks.TiltedEnergy`), else at the Gaussian base of the network where
    it has one, else at a standard normal in the unconstrained space of the support; in coordinates
    in which the Gaussian is standard. The first half of its steps tunes its step size, tested,
    so that a density narrower than the start is reached. A finite run remembers its start: the
    draws are those of the distribution only once ``num_steps`` is large enough, and modes that
    lie apart keep the share of starts that fell to them. Use MCMC for inference; use this for a
    look at the prior, or for prior predictive draws.

    A chain that could not leave its place in the second half of its run (of 20 steps or more), or
    left the finite numbers, draws NaN: its start is no draw. Outside of ``jit``,
    ``LearnedDistribution.sample`` warns of it as well.

    :param num_steps: steps of each run.
    :param step_size: ε of the Langevin step, relative to the start's variance of 1.
    :param metropolis: whether steps are tested, see :func:`langevin`.
    :param adapt_step_size: whether ``step_size`` is only where the search starts: to an acceptance
        of 0.574, or of 0.95 for steps that are then taken without a test.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.distributions import EnergyDistribution
    >>> from numpyro_score.samplers import Langevin
    >>> d = EnergyDistribution(lambda x: 0.5 * jnp.sum(x**2), (2,), sampler=Langevin(num_steps=20))
    >>> d.sample(jax.random.key(0), (5,)).shape
    (5, 2)
    """

    num_steps: int = 500
    step_size: float = 0.1
    metropolis: bool = True
    adapt_step_size: bool = True

    def __post_init__(self) -> None:
        check_int(self.num_steps, "num_steps", 1)
        check_positive(self.step_size, "step_size")

    def draw(
        self,
        rng_key: Array,
        log_prob: Callable[[Array], Array],
        transform: Transform,
        event_shape: Shape,
        start: Callable[[Array], Array] | None = None,
    ) -> Array:
        """One draw of the density ``exp(log_prob)`` on the codomain of ``transform``.

        :param start: draws the event where the run starts, given a key; by default ``transform`` of
            a standard normal.
        """
        key_start, key_tune, key_run = jax.random.split(rng_key, 3)
        if start is None:
            first = jax.random.normal(key_start, transform.inverse_shape(event_shape))
        else:
            first = transform.inv(start(key_start))

        def logdensity_fn(v: Array) -> Array:
            x = transform(v)
            return log_prob(x) + transform.log_abs_det_jacobian(v, x).sum()

        num_tuning = self.num_steps // 2 if self.adapt_step_size else 0
        num_steps = self.num_steps - num_tuning
        tuned, step_size = tune_step_size(
            key_tune,
            logdensity_fn,
            first,
            step_size=self.step_size,
            num_steps=num_tuning,
            target_accept_prob=0.574 if self.metropolis else 0.95,
        )
        v = langevin(
            key_run,
            logdensity_fn,
            tuned,
            step_size=step_size,
            num_steps=num_steps,
            metropolis=self.metropolis,
        )
        if num_steps >= _ENOUGH_TO_TELL:
            v = jnp.where(jnp.all(v == tuned), jnp.nan, v)
        return transform(v)


def tell_lost_draws(draws: np.ndarray, event_dim: int) -> None:
    """Warn of draws that :class:`Langevin` gave up, with what may help."""
    lost = ~np.isfinite(draws).all(tuple(range(draws.ndim - event_dim, draws.ndim)))
    if lost.any():
        warnings.warn(
            f"{lost.sum()} of {lost.size} Langevin runs stood still or left the finite numbers; "
            "these draws are NaN. The density may be much narrower than where the runs start, or "
            "grow without bound: raise num_steps, lower step_size, or draw with "
            "numpyro_score.infer.MALA and read its diagnostics.",
            stacklevel=3,
        )
