"""Langevin dynamics as a pure function of a log density.

x ← x + ε s(x) + √(2ε) ξ, with or without a Metropolis-Hastings test. Roberts & Tweedie (1996),
"Exponential convergence of Langevin distributions and their discrete approximations".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import blackjax
import jax
from blackjax.mcmc.diffusions import overdamped_langevin
from numpyro.distributions.transforms import Transform

from numpyro_score._checks import check_int, check_positive
from numpyro_score._typing import Array, Shape


def langevin(
    rng_key: Array,
    logdensity_fn: Callable[[Array], Array],
    position: Array,
    *,
    step_size: float,
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


@dataclass(frozen=True)
class Langevin:
    """Sampler that lets a learned distribution draw by a short Langevin run.

    Each draw is an own chain that starts at the Gaussian base of the network where it has one
    (else at a standard normal in the unconstrained space of the support), in coordinates in
    which that start is standard normal. A finite run remembers its start: the draws are those
    of the distribution only once ``num_steps`` is large enough, and modes that lie apart keep
    the share of starts that fell to them. Use MCMC for inference; use this for a look at the
    prior, or for prior predictive draws.

    :param num_steps: steps of each run.
    :param step_size: ε of the Langevin step, relative to the start's variance of 1.
    :param metropolis: whether steps are tested, see :func:`langevin`.

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

    def __post_init__(self) -> None:
        check_int(self.num_steps, "num_steps", 1)
        check_positive(self.step_size, "step_size")

    def draw(
        self,
        rng_key: Array,
        log_prob: Callable[[Array], Array],
        transform: Transform,
        event_shape: Shape,
    ) -> Array:
        """One draw of the density ``exp(log_prob)`` on the codomain of ``transform``."""
        key_start, key_run = jax.random.split(rng_key)
        start = jax.random.normal(key_start, transform.inverse_shape(event_shape))

        def logdensity_fn(v: Array) -> Array:
            x = transform(v)
            return log_prob(x) + transform.log_abs_det_jacobian(v, x).sum()

        v = langevin(
            key_run,
            logdensity_fn,
            start,
            step_size=self.step_size,
            num_steps=self.num_steps,
            metropolis=self.metropolis,
        )
        return transform(v)
