"""What to look at when a run is over."""

from numpyro_score.diagnostics.arviz import from_numpyro
from numpyro_score.diagnostics.calibration_result import SimulationBasedCalibration
from numpyro_score.diagnostics.classifier import (
    ClassifierTwoSampleTest,
    classifier_two_sample_test,
)
from numpyro_score.diagnostics.coverage import Coverage, coverage
from numpyro_score.diagnostics.expected_coverage import ExpectedCoverage, expected_coverage
from numpyro_score.diagnostics.maximum_mean_discrepancy import (
    MaximumMeanDiscrepancy,
    maximum_mean_discrepancy,
)
from numpyro_score.diagnostics.simulation_based_calibration import simulation_based_calibration
from numpyro_score.diagnostics.sliced_wasserstein import SlicedWasserstein, sliced_wasserstein
from numpyro_score.diagnostics.stein import kernel_stein_discrepancy

__all__ = [
    "ClassifierTwoSampleTest",
    "Coverage",
    "ExpectedCoverage",
    "MaximumMeanDiscrepancy",
    "SimulationBasedCalibration",
    "SlicedWasserstein",
    "classifier_two_sample_test",
    "coverage",
    "expected_coverage",
    "from_numpyro",
    "kernel_stein_discrepancy",
    "maximum_mean_discrepancy",
    "simulation_based_calibration",
    "sliced_wasserstein",
]
