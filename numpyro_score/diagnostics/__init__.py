"""What to look at when a run is over, and before it begins."""

from numpyro_score.diagnostics.arviz import from_numpyro
from numpyro_score.diagnostics.classifier import (
    ClassifierTwoSampleTest,
    classifier_two_sample_test,
)
from numpyro_score.diagnostics.curl import Curl, curl
from numpyro_score.diagnostics.findings import Finding, Findings
from numpyro_score.diagnostics.fisher import FisherDivergence, fisher_divergence
from numpyro_score.diagnostics.inference_data import to_arviz
from numpyro_score.diagnostics.maximum_mean_discrepancy import (
    MaximumMeanDiscrepancy,
    maximum_mean_discrepancy,
)
from numpyro_score.diagnostics.preflight import check
from numpyro_score.diagnostics.report import report
from numpyro_score.diagnostics.result import Diagnostic
from numpyro_score.diagnostics.sliced_wasserstein import SlicedWasserstein, sliced_wasserstein
from numpyro_score.diagnostics.stein import SteinDiscrepancy, kernel_stein_discrepancy
from numpyro_score.diagnostics.stein_thinning import stein_thinning
from numpyro_score.diagnostics.tails import TailCheck, tail_check
from numpyro_score.diagnostics.wild_bootstrap import SteinTest, stein_test

__all__ = [
    "ClassifierTwoSampleTest",
    "Curl",
    "Diagnostic",
    "Finding",
    "Findings",
    "FisherDivergence",
    "MaximumMeanDiscrepancy",
    "SlicedWasserstein",
    "SteinDiscrepancy",
    "SteinTest",
    "TailCheck",
    "check",
    "classifier_two_sample_test",
    "curl",
    "fisher_divergence",
    "from_numpyro",
    "kernel_stein_discrepancy",
    "maximum_mean_discrepancy",
    "report",
    "sliced_wasserstein",
    "stein_test",
    "stein_thinning",
    "tail_check",
    "to_arviz",
]
