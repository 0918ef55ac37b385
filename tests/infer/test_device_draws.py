"""Draws that stay where they were made are those that go to the host."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.infer import MALA, MCMC
from numpyro_score.infer import mcmc as module
from numpyro_score.infer._device_draws import DeviceDraws, on_accelerator
from numpyro_score.infer._draws import Position
from tests.infer.model import model
from tests.infer.test_mcmc import assert_same, run


@pytest.mark.parametrize("chain_method", ["vectorized", "sequential"])
def test_draws_that_stay_on_an_accelerator_are_the_same(monkeypatch, chain_method):
    """Chunks of four rows: the last one is not full, and reaches beyond the draws."""
    options = {"num_chains": 2, "chain_method": chain_method, "chunk_size": 4, "thinning": 1}
    on_the_host = run(MCMC, MALA(model), **options)
    monkeypatch.setattr(module, "on_accelerator", lambda state: True)
    on_the_device = run(MCMC, MALA(model), **options)
    assert_same(on_the_device, on_the_host)


def test_chunks_on_a_device_are_given_away():
    draws = DeviceDraws([])
    for end in (3, 5):
        chunk = jnp.full((2, 3, 1), end, jnp.float32)
        draws.add({"z": chunk}, Position(kept=end), [])
    np.testing.assert_array_equal(draws.take({})["z"][0, :, 0], [3, 3, 3, 5, 5])
    assert draws.take({}) is None


def test_the_processor_of_the_host_is_no_accelerator():
    assert on_accelerator(jnp.zeros(2)) == (jax.default_backend() != "cpu")
