"""What to look at when a run is over."""

from numpyro_score.diagnostics.arviz import from_numpyro
from numpyro_score.diagnostics.inference_data import to_arviz
from numpyro_score.diagnostics.stein import kernel_stein_discrepancy

__all__ = ["from_numpyro", "kernel_stein_discrepancy", "to_arviz"]
