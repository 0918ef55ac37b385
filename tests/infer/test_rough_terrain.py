"""Starts and densities at which a kernel could get stuck without a word."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from tests.cases import KERNELS

pytestmark = pytest.mark.statistics


def trajectory(kernel, num_warmup, num_steps, start):
    state = kernel.init(random.key(0), num_warmup, start)
    step = jax.jit(lambda state, _: (kernel.sample(state, (), {}),) * 2)
    return jax.lax.scan(step, state, None, length=num_steps)[1]


@pytest.mark.parametrize("name", KERNELS)
def test_a_wall_is_told_and_not_crossed(name):
    """The density ends at 0; a step beyond is diverging, and the chain goes on from before it."""

    def wall(z):
        return jnp.where(z[0] > 0, 0.5 * jnp.sum(z**2), jnp.nan)

    kernel = KERNELS[name].make(potential_fn=wall, step_size=0.4, adapt_step_size=False)
    states = trajectory(kernel, 0, 500, jnp.ones(3))
    z = np.asarray(states.z)
    assert (z[:, 0] > 0).all()
    assert bool(states.diverging.any())
    assert np.isfinite(z).all()
    assert bool(jnp.isfinite(states.potential_energy).all())
    assert len(np.unique(z[-250:, 1])) > 50, "it still moves at the end"


@pytest.mark.parametrize("name", KERNELS)
def test_a_start_on_a_steep_slope_is_left(name):
    """1,000 standard deviations away, where a gradient of 10⁵ meets a float32."""
    kernel = KERNELS[name].make(potential_fn=lambda z: 0.5 * jnp.sum((z / 0.01) ** 2))
    states = trajectory(kernel, 1000, 1200, jnp.full(3, 10.0))
    assert np.abs(states.z[-200:]).max() < 0.1
