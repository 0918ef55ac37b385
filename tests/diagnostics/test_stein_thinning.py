"""Stein thinning against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.diagnostics import kernel_stein_discrepancy, stein_thinning
from tests.diagnostics.test_stein import LENGTHSCALE, definition, skewed

KEY = jax.random.key(0)


def test_it_is_the_greedy_choice():
    draws = jax.random.normal(KEY, (40, 3))
    u = definition(skewed, draws)
    expected, sums = [], u.diagonal() / 2
    for _ in range(15):
        expected.append(int(np.argmin(sums)))
        sums = sums + u[expected[-1]]
    ours = stein_thinning(skewed, draws, 15, lengthscale=LENGTHSCALE)
    assert ours.tolist() == expected
    chains = stein_thinning(skewed, draws.reshape(4, 10, 3), 15, event_dim=1, lengthscale=1.7)
    assert chains.tolist() == expected


def test_it_leaves_out_a_burn_in():
    """Draws on their way in from afar are the first 100 of 500."""
    draws = jax.random.normal(KEY, (500, 2))
    draws = draws.at[:100].add(jnp.linspace(10, 1, 100)[:, None])
    chosen = np.asarray(stein_thinning(-draws, draws, 50, lengthscale=1.5))
    assert np.mean(chosen < 80) < 0.05
    thinned = kernel_stein_discrepancy(-draws[chosen], draws[chosen], lengthscale=1.5)
    every_tenth = kernel_stein_discrepancy(-draws[::10], draws[::10], lengthscale=1.5)
    assert thinned.value < every_tenth.value / 3


def test_refusals():
    with pytest.raises(ValueError, match="num_points must be an integer of at least 1"):
        stein_thinning(skewed, jnp.ones((4, 3)), 0)
    with pytest.raises(ValueError, match=r"2 chains of 20 events.*event_dim=1 for the other"):
        stein_thinning(skewed, jnp.ones((2, 20, 3)), 2)
    with pytest.raises(ValueError, match="all one and the same"):
        stein_thinning(skewed, jnp.ones((4, 3)), 2)
