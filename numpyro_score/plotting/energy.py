"""The energy along each chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpyro.infer import MCMC

from numpyro_score.plotting._axes import axes_or_new, state_field

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_POINTS = 1_000


def plot_energy_trace(mcmc: MCMC, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Show the potential energy, -log of the unnormalized posterior, along each chain.

    One line for the whole model, whatever its sites: chains that run at different heights are in
    different modes; a line that still falls had too little warm-up; a flat one is stuck; jumps far
    above the others are visits to where the learned energy is not to be trusted.

    :param mcmc: an MCMC after ``run(..., extra_fields=("potential_energy",))``. Where
        ``"diverging"`` is among the fields, divergences are marked.
    :param ax: axes to draw in; by default those of a new figure.
    :param kwargs: of :meth:`matplotlib.axes.Axes.plot`.
    :return: the axes; of long chains one draw in several is shown.
    :raises TypeError: not an MCMC.
    :raises RuntimeError: one that has not run.
    :raises ValueError: one whose energies were not collected, or are not finite.

    >>> import jax
    >>> from numpyro_score.infer import MALA, MCMC
    >>> from numpyro_score.plotting import plot_energy_trace
    >>> kernel = MALA(potential_fn=lambda z: 0.5 * z**2)
    >>> mcmc = MCMC(kernel, num_warmup=50, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), extra_fields=("potential_energy",), init_params=0.0)
    >>> ax = plot_energy_trace(mcmc)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('draw', 'potential energy')
    """
    state_field(mcmc, "potential_energy", "potential energy")
    fields = mcmc.get_extra_fields(group_by_chain=True)
    if "potential_energy" not in fields:
        raise ValueError(
            "the energies of this run were not collected: "
            'mcmc.run(..., extra_fields=("potential_energy",)).'
        )
    energy = np.asarray(fields["potential_energy"], float)
    if not np.isfinite(energy).all():
        raise ValueError(
            f"{np.sum(~np.isfinite(energy)):,} of {energy.size:,} energies are not finite: a chain "
            "is lost, and its draws mean nothing."
        )
    ax = axes_or_new(ax, figsize=(9, 3))
    every = -(-energy.shape[1] // _MAX_POINTS)
    draw = np.arange(0, energy.shape[1], every)
    for c, chain in enumerate(energy):
        style: dict[str, Any] = {"lw": 0.6, "alpha": 0.8, "label": f"chain {c + 1}"}
        ax.plot(draw, chain[draw], **(style | kwargs))
    diverging = np.asarray(fields.get("diverging", np.zeros(energy.shape, bool)))
    if diverging.any():
        chains, when = np.nonzero(diverging)
        label = f"{diverging.sum():,} divergences"
        ax.plot(when, energy[chains, when], "kx", ms=5, label=label)
    ax.set(xlabel="draw", ylabel="potential energy", xlim=(0, energy.shape[1]))
    if len(energy) <= 8:
        ax.legend(fontsize=8, ncols=5, loc="upper right")
    return ax
