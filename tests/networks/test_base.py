import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.networks import GaussianBase


def correlated(n=200):
    """Three correlated columns, shifted and of different scales."""
    z = np.random.default_rng(0).normal(size=(n, 3))
    return z @ np.array([[2.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.1]]) + [5.0, -1.0, 0.0]


@pytest.mark.parametrize("noise_scale", [0.0, 0.7])
def test_fit_is_the_gaussian_of_the_blurred_data(noise_scale):
    data = correlated()
    base = GaussianBase.fit(data, noise_scale)
    covariance = np.cov(data, rowvar=False, bias=True) + noise_scale**2 * np.eye(3)
    np.testing.assert_allclose(base.mean, data.mean(0), rtol=1e-5)
    np.testing.assert_allclose(base.scale, np.sqrt(np.diag(covariance)), rtol=1e-5)
    np.testing.assert_allclose(base.precision @ covariance, np.eye(3), atol=1e-4)


def test_score_is_minus_the_gradient_of_the_energy():
    base = GaussianBase.fit(correlated())
    x = jnp.array([4.0, 1.0, 0.2])
    np.testing.assert_allclose(base.score(x), -jax.grad(base.energy)(x), rtol=1e-4)
    np.testing.assert_allclose(base.score(x), -base.precision @ (x - base.mean), rtol=1e-4)


def test_draws_have_the_moments_of_the_base():
    base = GaussianBase.fit(correlated())
    n = 20_000
    draws = base.sample(jax.random.key(0), (n,))
    whitened = np.asarray((draws - base.mean) @ base.whitening.T)
    # Standard errors of the mean of n draws and of an entry of their covariance (√2 on the
    # diagonal); five of them.
    np.testing.assert_allclose(whitened.mean(0), 0.0, atol=5 / np.sqrt(n))
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=5 * np.sqrt(2 / n))
    assert base.sample(jax.random.key(0)).shape == (3,)
    assert base.sample(jax.random.key(0), (4, 2)).shape == (4, 2, 3)


def test_a_constant_column_is_named():
    data = correlated()
    data[:, 1] = 0.1
    with pytest.raises(ValueError, match=r"1 of 3 are constant \(columns 1\)"):
        GaussianBase.fit(data)
    assert np.isfinite(GaussianBase.fit(data, noise_scale=0.1).whitening).all()


def test_dependent_columns_are_named():
    data = correlated()
    data[:, 2] = 2 * data[:, 0] + 1
    for noise_scale, remedy in ((0.0, "noise_scale above 0"), (1e-6, "larger noise_scale")):
        with pytest.raises(ValueError, match=f"columns 0, 2 are linearly .*; give a {remedy}"):
            GaussianBase.fit(data, noise_scale)


def test_fewer_rows_than_columns_are_refused_without_noise():
    with pytest.raises(ValueError, match="3 rows of 3 columns"):
        GaussianBase.fit(correlated(3))


def test_one_column():
    base = GaussianBase.fit(np.array([[1.0], [3.0]]))
    np.testing.assert_allclose(base.mean, [2.0])
    np.testing.assert_allclose(base.precision, [[1.0]])
