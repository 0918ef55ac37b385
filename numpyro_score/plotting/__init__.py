"""Figures, with Matplotlib (extra: ``plotting``), which is imported when the first one is drawn."""

from numpyro_score.plotting.density import plot_density
from numpyro_score.plotting.energy import plot_energy_trace
from numpyro_score.plotting.images import plot_image_posterior
from numpyro_score.plotting.loss import plot_loss
from numpyro_score.plotting.score import plot_score
from numpyro_score.plotting.stein import plot_ksd
from numpyro_score.plotting.swaps import plot_swaps

__all__ = [
    "plot_density",
    "plot_energy_trace",
    "plot_image_posterior",
    "plot_ksd",
    "plot_loss",
    "plot_score",
    "plot_swaps",
]
