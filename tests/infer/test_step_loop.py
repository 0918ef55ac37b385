"""A chunk's loop, which takes the steps of our kernels apart: the steps are those of ``sample``."""

from __future__ import annotations

import numpy as np
import pytest
from jax import random

from numpyro_score.infer import MCMC
from tests.cases import KERNELS, POOLED
from tests.infer.model import Y, model

FIELDS = ("potential_energy", "adapt_state.step_size", "i")
# Far less than one step that is learned from twice, or not at all, changes.
TOLERANCE = 1e-3


def with_its_own_sample(kernel):
    """The kernel with a ``sample`` of somebody's own, which the loop may not pass over."""
    calls = []

    class Own(type(kernel)):
        def sample(self, state, model_args, model_kwargs):
            calls.append(1)
            return super().sample(state, model_args, model_kwargs)

    own = object.__new__(Own)
    own.__dict__ |= kernel.__dict__
    return own, calls


def warm_up_and_run(kernel):
    """Draws and fields of warm-up, of three windows, and of the run after it."""
    mcmc = MCMC(
        kernel,
        num_warmup=60,
        num_samples=20,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.warmup(random.key(0), Y, collect_warmup=True, extra_fields=FIELDS)
    warm = mcmc.get_samples(), mcmc.get_extra_fields()
    mcmc.run(mcmc.post_warmup_state.rng_key, Y, extra_fields=FIELDS)
    return *warm, mcmc.get_samples(), mcmc.get_extra_fields()


@pytest.mark.parametrize("name", ["mala", "mala_pooled", "ghmc", "chees"])
def test_the_steps_are_those_of_sample(name):
    make = (KERNELS | POOLED)[name].make
    own, calls = with_its_own_sample(make(model))
    taken_apart, whole = warm_up_and_run(make(model)), warm_up_and_run(own)
    assert calls, "its own sample was not asked"
    for ours, theirs in zip(taken_apart, whole, strict=True):
        for field, values in theirs.items():
            np.testing.assert_allclose(
                ours[field], values, rtol=TOLERANCE, atol=TOLERANCE, err_msg=field
            )
