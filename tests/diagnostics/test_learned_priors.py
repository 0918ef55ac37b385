"""Simulation-based calibration of hierarchical models with a learned prior."""

from functools import partial

import jax
import numpy as np
import pytest

from numpyro_score.diagnostics import simulation_based_calibration
from numpyro_score.infer import MALA

from .calibration_models import (
    MODELS,
    NoCorrection,
    energy_model,
    gamma_draw,
    joint_log_likelihood,
    mixture_draw,
    score_model,
    without_jacobian,
)

KEY = jax.random.key(0)
OPTIONS = {"observed": "y", "num_replications": 200, "num_warmup": 300, "num_draws": 49}


@pytest.mark.statistics
@pytest.mark.parametrize("name", ["energy", "score"])
def test_mala_passes(name):
    model, draw = MODELS[name]
    result = simulation_based_calibration(
        KEY, model, prior={"x": draw}, quantities=joint_log_likelihood, thinning=15, **OPTIONS
    )
    assert result.value > 0.01, repr(result)
    assert result.num_stuck == 0


@pytest.mark.statistics
@pytest.mark.parametrize(
    ("model", "draw", "kernel"),
    [
        (energy_model, mixture_draw, NoCorrection),
        (score_model, gamma_draw, without_jacobian),
        (partial(score_model, scale=0.25), gamma_draw, MALA),
    ],
    ids=["no correction", "no Jacobian", "a quarter of the score"],
)
def test_planted_bugs_fail(model, draw, kernel):
    result = simulation_based_calibration(
        KEY, model, kernel=kernel, prior={"x": draw}, thinning=15, **OPTIONS
    )
    p_values = np.concatenate([np.ravel(p) for p in result.p_values.values()])
    assert p_values.min() * p_values.size < 1e-3, repr(result)
