"""When warm-up ends its windows, and that no length of warm-up breaks a run."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from numpyro_score.infer import MALA
from numpyro_score.infer._schedule import build_schedule

LENGTHS = [*range(6), 20, 21, 53, 100, 400, 1000, 2001]


@pytest.mark.parametrize("num_warmup", LENGTHS)
def test_windows_cover_the_first_three_quarters_and_leave_the_last_to_the_step_size(num_warmup):
    schedule = build_schedule(num_warmup)
    ends = np.flatnonzero(schedule.ends_window) + 1
    assert schedule.num_warmup == num_warmup
    assert sum(ends[-1:]) == num_warmup - int(np.ceil(num_warmup / 4)), "no gap, and no overlap"
    assert max(np.diff(ends, prepend=0), default=0) == schedule.longest_window


@pytest.mark.parametrize("num_warmup", LENGTHS)
def test_windows_grow_so_that_the_last_is_the_longest(num_warmup):
    sizes = np.diff(np.flatnonzero(build_schedule(num_warmup).ends_window) + 1, prepend=0)
    assert all(small <= large for small, large in itertools.pairwise(sizes))
    if num_warmup >= 1000:
        assert sizes[-1] >= 0.25 * num_warmup


@pytest.mark.filterwarnings("ignore:Only the diagonal of the metric")
@pytest.mark.parametrize("dense_mass", [False, True])
@pytest.mark.parametrize("num_warmup", [0, 1, 2, 3, 5, 20])
def test_a_short_warmup_runs_to_a_usable_kernel(num_warmup, dense_mass):
    kernel = MALA(potential_fn=lambda z: 0.5 * jnp.sum(z**2), dense_mass=dense_mass)
    state = kernel.init(random.key(0), num_warmup, jnp.ones(2), (), {})
    step = jax.jit(lambda state: kernel.sample(state, (), {}))
    for _ in range(num_warmup + 5):
        state = step(state)
    adapted = state.adapt_state
    assert 0 < adapted.step_size < 100
    assert np.linalg.cond(adapted.whitening.covariance() * np.eye(2)) < 100
    assert not np.array_equal(state.z, jnp.ones(2)), "the chain moves"
