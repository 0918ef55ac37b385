"""What to look at when a run is over, and before it begins."""

from numpyro_score.diagnostics.arviz import from_numpyro
from numpyro_score.diagnostics.curl import Curl, curl
from numpyro_score.diagnostics.findings import Finding, Findings
from numpyro_score.diagnostics.fisher import FisherDivergence, fisher_divergence
from numpyro_score.diagnostics.inference_data import to_arviz
from numpyro_score.diagnostics.report import report
from numpyro_score.diagnostics.result import Diagnostic
from numpyro_score.diagnostics.stein import SteinDiscrepancy, kernel_stein_discrepancy
from numpyro_score.diagnostics.stein_thinning import stein_thinning
from numpyro_score.diagnostics.tails import TailCheck, tail_check
from numpyro_score.diagnostics.wild_bootstrap import SteinTest, stein_test

__all__ = [
    "Curl",
    "Diagnostic",
    "Finding",
    "Findings",
    "FisherDivergence",
    "SteinDiscrepancy",
    "SteinTest",
    "TailCheck",
    "curl",
    "fisher_divergence",
    "from_numpyro",
    "kernel_stein_discrepancy",
    "report",
    "stein_test",
    "stein_thinning",
    "tail_check",
    "to_arviz",
]
