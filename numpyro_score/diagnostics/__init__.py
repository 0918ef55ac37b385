"""What to look at when a run is over."""

from numpyro_score.diagnostics.arviz import from_numpyro

__all__ = ["from_numpyro"]
