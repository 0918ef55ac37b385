"""The figure of the quickstart: truth, observation, posterior, and the noise level's trace."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpyro.infer import MCMC

from numpyro_score.plotting import plot_image_posterior


def save_figure(path: str, truth, observation, mcmc: MCMC, true_noise: float) -> None:
    """Draw images in one row, the last draw of each chain among them, and the trace below."""
    draws = mcmc.get_samples(group_by_chain=True)
    fig = plt.figure(figsize=(14, 4.8), layout="constrained")
    grid = fig.add_gridspec(2, 9, height_ratios=[1.3, 1])
    plot_image_posterior(
        draws["x"],
        image_shape=(8, 8),
        truth=truth,
        observation=observation,
        limits=(0, 1),
        ax=[fig.add_subplot(grid[0, column]) for column in range(9)],
    )
    _trace(fig.add_subplot(grid[1, :]), np.asarray(draws["noise"]), true_noise)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _trace(ax, noise: np.ndarray, true_noise: float) -> None:
    step = max(1, noise.shape[1] // 1000)
    draw = np.arange(0, noise.shape[1], step)
    for c, chain in enumerate(noise):
        ax.plot(draw, chain[::step], lw=0.5, alpha=0.8, label=f"chain {c + 1}")
    ax.axhline(true_noise, color="black", ls="--", lw=1, label="truth")
    ax.set(xlabel="draw", ylabel="noise level", xlim=(0, noise.shape[1]))
    ax.margins(y=0.3)
    ax.legend(ncols=5, fontsize=8, loc="upper right")
