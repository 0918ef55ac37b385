"""Running moments against NumPy's."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.infer._moments import add_rows, init_moments


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("batches", [[1] * 30, [16, 1, 13], [30]])
def test_batches_of_any_size_give_the_moments_of_all_rows(batches, dense):
    # Far from the origin, where a difference of squares would lose every digit of a float32.
    rows = np.random.default_rng(0).normal(
        loc=[1e3, -5.0, 0.0], scale=[1.0, 0.1, 10.0], size=(30, 3)
    )
    moments = init_moments(3, dense)
    for batch in np.split(rows, np.cumsum(batches)[:-1]):
        moments = add_rows(moments, jnp.asarray(batch, float))
    expected = np.cov(rows.T) if dense else rows.var(0, ddof=1)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments.covariance, expected, rtol=2e-3, atol=1e-3)
    assert moments.num_rows == 30
