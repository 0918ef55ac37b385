"""p-values of the Stein test: uniform for draws of the density, small for others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from numpyro_score.diagnostics import stein_test
from numpyro_score.diagnostics._stein_kernel import Points
from numpyro_score.diagnostics.wild_bootstrap import bootstrap

KEY = jax.random.key(0)
NUM_RUNS = 300


@jax.jit
def p_values(draws, scores, flip_probability):
    """One p-value for each of the runs ``(NUM_RUNS, n, d)``."""

    def one(run):
        key, x, scores = run
        points = Points(x, scores, jnp.asarray(2.8, x.dtype))
        return bootstrap(key, points, 99, flip_probability)[1] / 100

    keys = jax.random.split(jax.random.key(7), len(draws))
    return jax.lax.map(one, (keys, draws, scores), batch_size=25)


def chain(correlation, shape):
    noise = jax.random.normal(KEY, shape)
    fresh = np.sqrt(1 - correlation**2)

    def step(x, noise):
        x = correlation * x + fresh * noise
        return x, x

    return jax.lax.scan(step, noise[:, 0], noise.swapaxes(0, 1))[1].swapaxes(0, 1)


@pytest.mark.statistics
def test_p_values_are_uniform_for_draws_of_the_density_and_not_for_others():
    draws = jax.random.normal(KEY, (NUM_RUNS, 64, 2))
    assert kstest(p_values(draws, -draws, 0.5), "uniform").pvalue > 0.01
    for wrong in (draws, -0.4 * draws, -(draws - 0.5)):
        p = np.asarray(p_values(draws, wrong, 0.5))
        assert kstest(p, "uniform").pvalue < 1e-6
        assert np.mean(p < 0.05) > 0.5


@pytest.mark.statistics
def test_wrong_weights_of_modes_are_seen_where_they_overlap_and_not_where_they_lie_apart():
    """Modes at ±a of one half each, with nine tenths of the draws at one of them."""
    signs = jnp.where(jax.random.bernoulli(KEY, 0.9, (NUM_RUNS, 64)), 1.0, -1.0)
    powers = {}
    for a in (1.0, 4.0):
        draws = jax.random.normal(KEY, (NUM_RUNS, 64, 2)).at[:, :, 0].add(a * signs)
        scores = (-draws).at[:, :, 0].add(a * jnp.tanh(a * draws[:, :, 0]))
        powers[a] = np.mean(np.asarray(p_values(draws, scores, 0.5)) <= 0.05)
    assert powers[1.0] > 0.5
    assert powers[4.0] < 0.05 + 5 * 0.0126


@pytest.mark.statistics
def test_draws_of_a_chain_need_signs_as_dependent_as_they_are():
    """At a lag-1 correlation of 0.5, three draws are worth one."""
    draws = chain(0.5, (NUM_RUNS, 192, 2))
    independent, dependent = (np.asarray(p_values(draws, -draws, flip)) for flip in (0.5, 0.05))
    assert np.mean(independent < 0.05) > 0.25
    # 5 % of 300 within five standard errors, 1.3 % each.
    assert np.mean(dependent < 0.05) < 0.05 + 5 * 0.0126


def test_the_bias_of_unadjusted_langevin_is_seen():
    """At a step of 0.5 for a standard normal it draws a variance of 4/3."""

    @jax.jit
    def run(x):
        def step(x, key):
            return 0.5 * x + jax.random.normal(key, x.shape), None

        return jax.lax.scan(step, x, jax.random.split(KEY, 20))[0]

    draws = run(jnp.zeros((1_000, 2)))
    assert stein_test(KEY, -draws, draws, num_bootstrap=99).p_value <= 0.02


def test_it_tells_statistic_p_value_and_how_to_read_them():
    draws = jax.random.normal(KEY, (4, 50, 2))
    good = stein_test(KEY, -draws, draws, event_dim=1, num_bootstrap=199)
    bad = stein_test(KEY, -draws / 3, draws, event_dim=1, num_bootstrap=199)
    assert good.p_value == float(good) > 0.05
    assert bad.p_value == 1 / 200
    np.testing.assert_allclose(good.statistic, 200 * good.discrepancy**2, rtol=1e-6)
    assert "no proof" in repr(good)
    assert "1 of 20" in repr(bad)


def test_signs_are_those_of_a_chain_and_each_chain_starts_anew():
    """Of draws in two groups far apart, u is about a block matrix of 2 u, and 0 between them.

    Signs that never flip leave the form of one chain as it is; those of two chains leave each
    group's as it is, too, whichever the signs are. Ones that flip do not.
    """
    x = jnp.repeat(jnp.array([[-1e3], [1e3]]), 32, 0) + jax.random.normal(KEY, (64, 1)) / 10
    points = Points(x, jnp.ones_like(x), jnp.ones((), x.dtype))
    assert bootstrap(KEY, points, 99, 1e-9, 1)[1] == 100
    apart = Points(x, jnp.ones_like(x) * jnp.sign(x), points.square)
    joined = Points(x / 1e4, jnp.ones_like(x), points.square)
    assert bootstrap(KEY, apart, 99, 0.5, 1)[1] == 1
    # Of two signs, half are alike.
    assert 30 < bootstrap(KEY, joined, 99, 1e-9, 2)[1] < 70


def test_refusals():
    draws = jax.random.normal(KEY, (60, 2))
    with pytest.raises(ValueError, match="n of at least 50"):
        stein_test(KEY, -draws[:49], draws[:49])
    with pytest.raises(ValueError, match="num_bootstrap must be an integer of at least 19"):
        stein_test(KEY, -draws, draws, num_bootstrap=5)
    with pytest.raises(ValueError, match="flip_probability must be above 0"):
        stein_test(KEY, -draws, draws, flip_probability=0.6)
