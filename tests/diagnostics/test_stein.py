"""The kernel Stein discrepancy against its definition, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.diagnostics import _stein_kernel, kernel_stein_discrepancy

KEY = jax.random.key(0)


def definition(score, draws, lengthscale):
    """The mean of the Stein kernel, by derivatives of the kernel."""

    def k(x, y):
        return 1 / jnp.sqrt(1 + jnp.sum((x - y) ** 2) / lengthscale**2)

    def u(x, y):
        cross = jax.jacfwd(jax.grad(k, 1), 0)(x, y)
        return (
            score(x) @ score(y) * k(x, y)
            + score(x) @ jax.grad(k, 1)(x, y)
            + score(y) @ jax.grad(k, 0)(x, y)
            + jnp.trace(cross)
        )

    return jnp.sqrt(jnp.mean(jax.vmap(lambda x: jax.vmap(lambda y: u(x, y))(draws))(draws)))


def skewed(x):
    return jnp.stack([-x[0] + 0.3 * x[1] ** 2, jnp.sin(x[1]) - x[1], -0.5 * x[2] + x[0]])


@pytest.mark.parametrize("num_draws", [2, 40, 41])
def test_it_is_its_definition(num_draws, monkeypatch):
    draws = 3.0 + 2.0 * jax.random.normal(KEY, (num_draws, 3))
    monkeypatch.setattr(_stein_kernel, "BLOCK", 7)
    jax.clear_caches()
    ours = kernel_stein_discrepancy(skewed, draws, lengthscale=1.7)
    np.testing.assert_allclose(ours.value, definition(skewed, draws, 1.7), rtol=1e-3)


def test_scores_may_be_given_as_numbers():
    draws = jax.random.normal(KEY, (50, 2, 3))
    by_function = kernel_stein_discrepancy(lambda x: -x, draws).value
    np.testing.assert_allclose(kernel_stein_discrepancy(-draws, draws).value, by_function, 1e-6)
    flat = draws.reshape(50, 6)
    np.testing.assert_allclose(kernel_stein_discrepancy(-flat, flat).value, by_function, 1e-6)


def test_it_falls_with_the_root_of_the_number_of_good_draws():
    draws = jax.random.normal(KEY, (4_096, 2))
    few, many = (
        kernel_stein_discrepancy(lambda x: -x, draws[:n], lengthscale=1.0).value
        for n in (256, 4_096)
    )
    assert 2.5 < few / many < 6.0


@pytest.mark.parametrize(
    "score",
    [lambda x: x, lambda x: -0.5 * x, lambda x: -(x - 0.2), lambda x: -x + 0.3 * jnp.roll(x, 1)],
    ids=["sign", "scale", "shift", "curl"],
)
def test_a_wrong_score_is_seen(score):
    draws = jax.random.normal(KEY, (4_096, 2))
    good = kernel_stein_discrepancy(lambda x: -x, draws)
    bad = kernel_stein_discrepancy(score, draws)
    assert bad.value > 3 * good.value
    assert good.degenerate
    assert not bad.degenerate


def test_refusals():
    draws = jax.random.normal(KEY, (10, 2))
    with pytest.raises(ValueError, match="n of at least 2"):
        kernel_stein_discrepancy(lambda x: -x, draws[:1])
    with pytest.raises(ValueError, match=r"the shape of a draw, \(2,\); got \(\)"):
        kernel_stein_discrepancy(lambda x: jnp.sum(x), draws)
    with pytest.raises(FloatingPointError, match="a draw is not finite"):
        kernel_stein_discrepancy(lambda x: -x, draws.at[0, 0].set(jnp.nan))
    with pytest.raises(FloatingPointError, match="a score is not finite"):
        kernel_stein_discrepancy(lambda x: x / 0.0, draws)
    with pytest.raises(ValueError, match="a chain that did not move"):
        kernel_stein_discrepancy(lambda x: -x, jnp.ones((10, 2)))
    with pytest.raises(ValueError, match="lengthscale must be a finite number above 0"):
        kernel_stein_discrepancy(lambda x: -x, draws, lengthscale=-1.0)
