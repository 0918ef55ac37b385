"""The figure of the quickstart: truth, observation, posterior, and the noise level's trace."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpyro.infer import MCMC


def save_figure(path: str, truth, observation, mcmc: MCMC, true_noise: float) -> None:
    """Draw images in one row, the posterior sd on its own scale, and the trace below."""
    draws = mcmc.get_samples(group_by_chain=True)
    pixels = np.asarray(draws["x"])
    every = pixels.reshape(-1, pixels.shape[-1])
    images = {"truth": truth, "observation": observation, "posterior mean": every.mean(0)}
    # One draw a chain, so that chains that disagree would be seen.
    images |= {f"draw, chain {c + 1}": chain[-1] for c, chain in enumerate(pixels)}

    fig = plt.figure(figsize=(14, 4.8), layout="constrained")
    grid = fig.add_gridspec(2, len(images) + 1, height_ratios=[1.3, 1])
    axes = [fig.add_subplot(grid[0, column]) for column in range(len(images) + 1)]
    grey = {"cmap": "gray_r", "vmin": 0, "vmax": 1}
    for ax, (title, image) in zip(axes, images.items(), strict=False):
        shown = _show(ax, title, image, **grey)
    fig.colorbar(shown, ax=axes[:-1], location="bottom", aspect=60, label="pixel", extend="both")
    shown = _show(axes[-1], "posterior sd", every.std(0), cmap="viridis", vmin=0)
    fig.colorbar(shown, ax=axes[-1:], location="bottom", aspect=8.5, label="sd of pixel")
    _trace(fig.add_subplot(grid[1, :]), np.asarray(draws["noise"]), true_noise)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _show(ax, title: str, image, **style):
    ax.set_title(title, fontsize=10)
    ax.set_xticks([])
    ax.set_yticks([])
    return ax.imshow(np.asarray(image).reshape(8, 8), **style)


def _trace(ax, noise: np.ndarray, true_noise: float) -> None:
    step = max(1, noise.shape[1] // 1000)
    draw = np.arange(0, noise.shape[1], step)
    for c, chain in enumerate(noise):
        ax.plot(draw, chain[::step], lw=0.5, alpha=0.8, label=f"chain {c + 1}")
    ax.axhline(true_noise, color="black", ls="--", lw=1, label="truth")
    ax.set(xlabel="draw", ylabel="noise level", xlim=(0, noise.shape[1]))
    ax.margins(y=0.3)
    ax.legend(ncols=5, fontsize=8, loc="upper right")
