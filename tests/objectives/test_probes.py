"""Random vectors whose mean outer product is the identity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.objectives._trace import draw_probes, value_and_curvatures

from .gaussian import STANDARD_ERRORS, standard_errors


@pytest.mark.parametrize("probe", ["rademacher", "normal", "sphere"])
def test_mean_outer_product_is_the_identity(probe):
    v = draw_probes(probe, jax.random.key(0), (20_000, 2, 2), 2, jnp.float32)
    flat = v.reshape(-1, 4)
    products = (flat[:, :, None] * flat[:, None, :] - jnp.eye(4)).reshape(-1, 16)
    off = products[:, np.asarray(products).std(0) > 1e-4]  # squares of signs are exact
    assert np.all(np.abs(standard_errors(off)) < STANDARD_ERRORS)


@pytest.mark.parametrize("probe", ["rademacher", "normal", "sphere"])
def test_the_estimate_is_the_trace_on_average(probe):
    matrix = jax.random.normal(jax.random.key(1), (5, 5))
    v = draw_probes(probe, jax.random.key(0), (20_000, 5), 1, jnp.float32)
    value, curvatures = value_and_curvatures(lambda x: matrix @ x, jnp.ones(5), v)
    np.testing.assert_allclose(value, matrix.sum(1), rtol=1e-5)
    assert abs(standard_errors(curvatures - jnp.trace(matrix))) < STANDARD_ERRORS
    # Neither divided by the dimension nor summed over probes.
    assert abs(standard_errors(curvatures / 5 - jnp.trace(matrix))) > STANDARD_ERRORS


def test_signs_have_the_least_variance():
    matrix = jnp.diag(jnp.arange(5.0))
    variances = {}
    for probe in ("rademacher", "sphere", "normal"):
        v = draw_probes(probe, jax.random.key(0), (5_000, 5), 1, jnp.float32)
        variances[probe] = value_and_curvatures(lambda x: matrix @ x, jnp.ones(5), v)[1].var()
    assert variances["rademacher"] < 1e-8 < variances["sphere"] < variances["normal"]
