"""The ladder of replica exchange: where its levels are, and where they would serve better.

Between neighbours of rejection rate r_k the communication barrier grows by r_k, and round trips
take the least time where it grows by as much at every rung: Syed, Bouchard-Côté, Deligiannidis &
Doucet (2022), "Non-reversible parallel tempering: a scalable highly parallel MCMC scheme",
Journal of the Royal Statistical Society B 84, algorithm 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int, check_positive
from numpyro_score._typing import Array
from numpyro_score.distributions import DiffusionDistribution
from numpyro_score.infer._levels import Level

# So that a rung that was never refused does not fall onto its neighbour.
_LEAST_REJECTION = 1e-2


def build_ladder(
    num_replicas: int,
    noise_levels: Sequence[float] | None,
    inverse_temperatures: Sequence[float] | None,
    diffusions: dict[str, DiffusionDistribution],
) -> Level:
    """Return the levels to start with, NumPy arrays ``(num_replicas,)``, from the posterior up.

    :raises ValueError: levels that are no ladder, or a ladder that changes nothing.
    """
    check_int(num_replicas, "num_replicas", 2)
    if noise_levels is None and diffusions:
        noise_levels = _default_noise(diffusions)
    if noise_levels is not None and not diffusions:
        raise ValueError(
            "noise_levels are for latent sites with a DiffusionDistribution, and this model has "
            "none. Leave them out, and give inverse_temperatures."
        )
    if noise_levels is None and inverse_temperatures is None:
        raise ValueError(
            "All replicas would be the same: the model has no latent site with a "
            "DiffusionDistribution whose noise could grow, and no inverse_temperatures were given."
        )
    noise = _checked_noise(noise_levels)
    if diffusions:
        # The first level is the posterior, of data with the least noise that the site has.
        noise[0] = min(noise[0], _default_noise(diffusions)[0])
    noise = _rungs(noise, num_replicas)
    power = _rungs(_checked_powers(inverse_temperatures), num_replicas)
    return Level(noise, power)


def _default_noise(diffusions: dict[str, DiffusionDistribution]) -> list[float]:
    sdes = [diffusion.sde for diffusion in diffusions.values()]
    with jax.ensure_compile_time_eval():
        first = min(float(sde.noise_scale(jnp.asarray(sde.t_min))) for sde in sdes)
        last = max(float(sde.noise_scale(jnp.asarray(sde.t_max))) for sde in sdes)
    return [first, last]


def _checked_noise(levels: Sequence[float] | None) -> np.ndarray:
    if levels is None:
        return np.ones(1)
    noise = np.array(levels, float)
    check_positive(noise, "every one of noise_levels")
    if noise.ndim != 1 or len(noise) < 2 or not np.all(np.diff(noise) > 0):
        raise ValueError(
            f"noise_levels must grow, from that of the posterior, got {levels}; two are enough, "
            "the others are laid between them."
        )
    return noise


def _checked_powers(powers: Sequence[float] | None) -> np.ndarray:
    if powers is None:
        return np.ones(1)
    values = np.asarray(powers, float)
    check_positive(values, "every one of inverse_temperatures")
    if values.ndim != 1 or len(values) < 2 or values[0] != 1 or not np.all(np.diff(values) <= 0):
        raise ValueError(
            "inverse_temperatures must begin with the 1 of the posterior and fall, got "
            f"{powers}; two are enough, the others are laid between them."
        )
    return values


def _rungs(levels: np.ndarray, num_replicas: int) -> np.ndarray:
    """Return as many levels as there are replicas, laid between those given in logarithms."""
    if len(levels) == num_replicas:
        return levels
    where = np.linspace(0, len(levels) - 1, num_replicas)
    return np.exp(np.interp(where, np.arange(len(levels)), np.log(levels)))


def even_out(ladder: Level, accept_prob: Array) -> Level:
    """Return levels between which swaps are accepted at even rates.

    :param ladder: levels of shape ``(num_replicas,)``.
    :param accept_prob: mean acceptance between neighbours, of shape ``(num_replicas - 1,)``.
    """
    rejection = jnp.maximum(1 - accept_prob, _LEAST_REJECTION)
    barrier = jnp.concatenate([jnp.zeros(1), jnp.cumsum(rejection)])
    even = jnp.linspace(0.0, 1.0, len(barrier)) * barrier[-1]

    def move(levels: Array) -> Array:
        new = jnp.exp(jnp.interp(even, barrier, jnp.log(levels)))
        # The ends are the user's: to the bit.
        return new.at[0].set(levels[0]).at[-1].set(levels[-1])

    return Level(*(move(jnp.asarray(levels)) for levels in ladder))
