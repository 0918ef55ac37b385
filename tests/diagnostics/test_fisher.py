"""The Fisher divergence of Gaussians, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from numpyro_score.diagnostics import fisher_divergence
from numpyro_score.distributions import EnergyDistribution

KEY = jax.random.key(0)
NUM_ERRORS = 5.0
COVARIANCE = np.array([[2.0, 0.6], [0.6, 0.5]])
PRECISION = np.linalg.inv(COVARIANCE)


def data(n=2_000):
    return jax.random.normal(KEY, (n, 2)) @ jnp.asarray(np.linalg.cholesky(COVARIANCE).T)


def exact(matrix):
    """½ E‖(A + P) x‖² for the score A x and data N(0, P⁻¹)."""
    off = matrix + PRECISION
    return 0.5 * np.trace(off @ COVARIANCE @ off.T)


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0], ids=["right", "half", "sign"])
def test_with_and_without_the_truth(scale):
    matrix = jnp.asarray(-scale * PRECISION, float)
    score = lambda x: matrix @ x  # noqa: E731
    truth = lambda x: jnp.asarray(-PRECISION, float) @ x  # noqa: E731
    known = fisher_divergence(score, data(), reference=truth)
    implicit = fisher_divergence(score, data())
    divergence = exact(np.asarray(matrix, float))
    assert abs(known.value - divergence) <= NUM_ERRORS * known.error
    # The divergence of the fitted Gaussian itself is of the order d² / n.
    assert abs(implicit.value - divergence) <= NUM_ERRORS * implicit.error + 0.05
    if scale != 1:
        assert implicit.value > NUM_ERRORS * implicit.error
        assert "worse than Gaussian" in repr(implicit)
    np.testing.assert_allclose(known.relative, (1 - scale) ** 2, atol=1e-4)


def test_a_better_score_than_a_gaussian_is_called_so():
    """Two modes at ±2: the score of the mixture, of which a Gaussian knows nothing."""
    z = jax.random.normal(KEY, (1_000, 1))
    x = z + jnp.where(jnp.arange(1_000) % 2, 2.0, -2.0)[:, None]
    score = lambda x: -x + 2 * jnp.tanh(2 * x)  # noqa: E731
    found = fisher_divergence(score, x)
    assert "better than Gaussian" in repr(found)
    probed = fisher_divergence(score, x, num_probes=1, key=KEY)
    np.testing.assert_allclose(probed.value, found.value, rtol=1e-4)


def test_probes_have_the_trace_as_their_mean():
    matrix = jnp.asarray(-PRECISION, float)
    exact, probed = (
        fisher_divergence(lambda x: matrix @ x, data(), **options)
        for options in ({}, {"num_probes": 4, "key": KEY})
    )
    # v' A v = tr A + 2 a b v₁v₂: of 8,000 probes.
    assert abs(probed.value - exact.value) < NUM_ERRORS * 2 * abs(PRECISION[0, 1]) / 8_000**0.5


def test_conditions_and_many_dimensions():
    condition = jnp.arange(50.0)[:, None]
    rows = jax.random.normal(KEY, (50, 12)) + condition
    energy = EnergyDistribution(
        lambda x, c: 0.5 * jnp.sum((x - c) ** 2), (12,), condition=condition
    )
    assert fisher_divergence(energy, rows, reference=condition - rows).value < 1e-10
    found = fisher_divergence(energy, rows)
    assert found.baseline == "independent Gaussians"
    assert found.value < 0


def test_a_distribution_tells_the_axes_of_an_event_to_the_other():
    """Of score and reference."""
    rows = jax.random.normal(KEY, (40, 2, 3))
    images = dist.Normal(jnp.zeros((2, 3)), 1).to_event(2)
    assert fisher_divergence(images, rows, reference=-rows).value < 1e-10
    chains = fisher_divergence(lambda x: -x, rows.reshape(2, 20, 2, 3), reference=images)
    assert chains.value < 1e-10
    with pytest.raises(ValueError, match=r"give event_dim=2 .* event_dim=1 for the other"):
        fisher_divergence(lambda x: -x, rows, reference=-rows)


def test_refusals():
    x = jax.random.normal(KEY, (50, 2))
    normal = dist.Normal(jnp.zeros(2), 1).to_event(1)
    with pytest.raises(ValueError, match="n of at least 20"):
        fisher_divergence(normal, x[:19])
    with pytest.raises(ValueError, match="coordinate 1 of the data is constant"):
        fisher_divergence(normal, x.at[:, 1].set(3.0))
    with pytest.raises(ValueError, match="need a key"):
        fisher_divergence(normal, x, num_probes=2)
    with pytest.raises(FloatingPointError, match="row of data is not finite"):
        fisher_divergence(normal, x.at[0, 0].set(jnp.inf))
    with pytest.raises(ValueError, match=r"the shape of a draw, \(2,\)"):
        fisher_divergence(jnp.sum, x)
