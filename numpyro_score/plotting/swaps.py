"""How readily the replicas of neighbouring noise levels swap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpyro.infer import MCMC

from numpyro_score.plotting._axes import axes_or_new, state_field

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_swaps(mcmc: MCMC, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Show the mean acceptance of swaps between the levels of a replica exchange, by chain.

    A point lies between the two noise levels that it is of (between two powers of the likelihood
    where all levels have the same noise). The points should lie level, well above 0: where they
    dip, what is found at much noise does not come down to the posterior, and more replicas, or
    levels laid anew in warm-up, help. The title counts round trips, without which modes were not
    revisited.

    :param mcmc: an MCMC of :class:`numpyro_score.infer.ReplicaExchange` after its run.
    :param ax: axes to draw in; by default those of a new figure.
    :param kwargs: of :meth:`matplotlib.axes.Axes.plot`.
    :return: the axes.
    :raises TypeError: not an MCMC.
    :raises RuntimeError: one that has not run.
    :raises ValueError: one of another kernel, or in which some pair has never proposed a swap.

    >>> import jax, jax.numpy as jnp, numpyro
    >>> from numpyro_score.distributions import DiffusionDistribution
    >>> from numpyro_score.infer import MALA, MCMC, ReplicaExchange
    >>> from numpyro_score.plotting import plot_swaps
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.1, 5.0)
    >>> def model():  # its prior: a normal, with noise
    ...     energy = lambda x, t: 0.5 * jnp.sum(x**2) / (1 + sde.marginal_std(t) ** 2)
    ...     numpyro.sample("x", DiffusionDistribution(energy, sde, (1,)))
    >>> kernel = ReplicaExchange(MALA(model), num_replicas=4)
    >>> mcmc = MCMC(kernel, num_warmup=100, num_samples=100, progress_bar=False)
    >>> mcmc.run(jax.random.key(0))
    >>> ax = plot_swaps(mcmc)
    >>> ax.get_xlabel(), len(ax.lines[0].get_xdata())
    ('noise level', 3)
    """
    rates = np.atleast_2d(state_field(mcmc, "mean_swap_accept_prob", "swaps: see ReplicaExchange"))
    if (np.atleast_2d(mcmc.last_state.num_swaps) == 0).any():
        raise ValueError(
            "some neighbours have not proposed a swap yet, so that their rate is not known: draw "
            "more than one sample."
        )
    levels = mcmc.last_state.levels
    levels = jax.tree.map(np.atleast_2d, type(levels)(*map(np.asarray, levels)))
    round_trips = np.atleast_1d(mcmc.last_state.journeys.round_trips)
    ax = axes_or_new(ax)
    place, name = _between(levels)
    for c, (x, chain) in enumerate(zip(place, rates, strict=True)):
        style: dict[str, Any] = {
            "marker": "o",
            "ms": 4,
            "lw": 1,
            "alpha": 0.8,
            "label": f"chain {c + 1}",
        }
        ax.plot(x, chain, **(style | kwargs))
    ax.set(xscale="log", xlabel=name, ylabel="acceptance of swaps", ylim=(0, 1))
    ax.set_title(f"round trips: {', '.join(f'{n:,}' for n in round_trips)}", fontsize=9)
    if 1 < len(rates) <= 8:
        ax.legend(fontsize=8)
    return ax


def _between(levels: Any) -> tuple[np.ndarray, str]:
    """Return where the pairs lie, ``(chains, K - 1)``, and what it is that they lie along."""
    noise, power = levels
    if (noise[:, 0] < noise[:, -1]).all():
        # The noise of the first level is that of the site, for which 0 may stand.
        noise = np.where(noise > 0, noise, noise[:, 1:2] / 2)
        return np.sqrt(noise[:, :-1] * noise[:, 1:]), "noise level"
    return np.sqrt(power[:, :-1] * np.maximum(power[:, 1:], power[:, :-1] / 4)), (
        "power of the likelihood"
    )
