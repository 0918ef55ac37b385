"""The figure of example 05: the fit, and each inferred column beside that of all rows."""

import matplotlib.pyplot as plt
import numpy as np
from csv_columns import Table

from numpyro_score.plotting import plot_loss


def save_figure(path: str, result, table: Table, draws: dict) -> None:
    _, axes = plt.subplots(1, len(draws) + 1, figsize=(4 * len(draws) + 4, 3.2), squeeze=False)
    plot_loss(result, ax=axes[0, 0])
    for ax, (name, values) in zip(axes[0, 1:], draws.items(), strict=True):
        column = table.rows[:, table.names.index(name)]
        bins = np.linspace(column.min(), column.max(), 40)
        ax.hist(column, bins, density=True, color="0.8", label="all rows")
        ax.hist(values, bins, density=True, histtype="step", lw=1.5, label="given the others")
        ax.set(xlabel=name, ylabel="density")
        ax.legend(fontsize=8)
    plt.tight_layout()
    plt.savefig(path, dpi=110)
