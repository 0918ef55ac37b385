"""Distances between two sets of draws: definitions, closed forms, and errors that are right."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import kstest, wasserstein_distance

from numpyro_score.diagnostics import (
    classifier_two_sample_test,
    maximum_mean_discrepancy,
    sliced_wasserstein,
)
from numpyro_score.diagnostics import maximum_mean_discrepancy as mmd_of_package
from numpyro_score.diagnostics._two_samples import error_of_mean

KEY = jax.random.key(0)
NUM_ERRORS = 5.0


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def chains_of(seed, num, size, correlation):
    """Autoregressive draws with standard normal margins."""
    noise = np.random.default_rng(seed).normal(size=(num + 100, size))
    draws = lfilter([np.sqrt(1 - correlation**2)], [1, -correlation], noise, axis=0)
    return draws[100:].astype(np.float32)


# -- sliced Wasserstein ------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(40, 40), (60, 25)])
def test_along_a_line_it_is_that_of_scipy(sizes):
    x, y = normal(1, sizes[0]), 1.3 * normal(2, sizes[1]) + 0.4
    ours = sliced_wasserstein(KEY, x, y)
    assert ours.value == pytest.approx(wasserstein_distance(x, y), rel=1e-5)


@pytest.mark.parametrize("sizes", [(40, 40), (60, 25)])
def test_of_second_order_it_is_that_of_repeated_draws(sizes):
    """Repeated until both sets are of one size, the best plan joins them in their order."""
    x, y = normal(1, sizes[0]), 1.3 * normal(2, sizes[1]) + 0.4
    size = np.lcm(*sizes)
    u, v = (np.sort(np.repeat(values, size // len(values))) for values in (x, y))
    exact = np.sqrt(np.mean((u - v) ** 2))
    assert sliced_wasserstein(KEY, x, y, order=2).value == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "order", "exact"),
    [
        (lambda x: 1.5 * x, 1, 0.5 * np.sqrt(2 / np.pi)),
        (lambda x: 1.5 * x, 2, 0.5),
        (lambda x: x + 1.0, 2, 1.0),  # √(E θ·1 squared)
    ],
    ids=["scale", "scale, order 2", "shift, order 2"],
)
def test_of_gaussians_it_is_the_closed_form(change, order, exact):
    ours = sliced_wasserstein(
        KEY, change(normal(1, 4000, 2, 2)), normal(2, 3000, 2, 2), order=order
    )
    assert abs(ours.value - exact) < NUM_ERRORS * ours.error
    assert 0.001 < ours.error < 0.06
    assert "times as much" in repr(ours)


def test_blocks_of_directions_change_nothing(monkeypatch):
    x, y = normal(1, 50, 3), normal(2, 70, 3)
    whole = sliced_wasserstein(KEY, x, y, num_projections=33)
    module = sys.modules[sliced_wasserstein.__module__]
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", 120 * 7)  # blocks of seven directions
    blocks = sliced_wasserstein(KEY, x, y, num_projections=33)
    np.testing.assert_allclose(
        [whole.value, whole.error, whole.floor], [blocks.value, blocks.error, blocks.floor], 1e-5
    )


def test_the_floor_is_what_exact_draws_give():
    exact = [sliced_wasserstein(KEY, normal(s, 300, 2), normal(s + 50, 600, 2)) for s in range(20)]
    values = np.array([float(one) for one in exact])
    floors, spreads = np.array([(one.floor, one.floor_spread) for one in exact]).T
    error = np.hypot(values.std(), floors.std()) / np.sqrt(len(exact))
    assert abs(values.mean() - floors.mean()) < NUM_ERRORS * error
    assert 0.5 < spreads.mean() / values.std() < 2.0
    assert sum("no difference is seen" in repr(one) for one in exact) >= 18


def test_a_set_compared_with_itself_is_told():
    x = normal(1, 300, 2)
    assert "do both sets hold the same draws?" in repr(sliced_wasserstein(KEY, x, x))


@pytest.mark.statistics
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_error_is_that_of_replications(correlation):
    """Also for the draws of a chain; the mean over chains is the truth, but for a small bias."""
    runs = [
        sliced_wasserstein(
            jax.random.key(s),
            1.0 + chains_of(3 * s, 2000, 2, correlation),
            normal(s + 900, 2000, 2),
        )
        for s in range(50)
    ]
    ratio = np.std([r.value for r in runs], ddof=1) / np.mean([r.error for r in runs])
    assert 0.65 < ratio < 1.45  # of 50: ± 4 standard errors, and batches are of finite length


# -- maximum mean discrepancy ------------------------------------------------------------------


def by_definition(x, y, k):
    xx, yy, xy = (
        np.array(jax.vmap(lambda a, b=b: jax.vmap(lambda c: k(jnp.sum((a - c) ** 2)))(b))(a))
        for a, b in ((x, x), (y, y), (x, y))
    )
    for square in (xx, yy):
        np.fill_diagonal(square, 0)
    n, m = len(x), len(y)
    return xx.sum() / (n * (n - 1)) + yy.sum() / (m * (m - 1)) - 2 * xy.mean()


KERNELS = {"rbf": lambda r2: jnp.exp(-r2 / 8), "imq": lambda r2: 1 / jnp.sqrt(1 + r2 / 4)}


@pytest.mark.parametrize("kernel", KERNELS)
def test_it_is_its_definition(kernel, monkeypatch):
    x, y = normal(1, 60, 2) + 0.5, normal(2, 75, 2)
    module = sys.modules[mmd_of_package.__module__]
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 135 * 7)  # blocks of seven rows
    jax.clear_caches()
    ours = maximum_mean_discrepancy(x, y, kernel=kernel, lengthscale=2.0)
    exact = by_definition(x, y, KERNELS[kernel])
    assert ours.value == pytest.approx(exact, abs=1e-6)
    groups = np.arange(60) * 25 // 60, np.arange(75) * 25 // 75
    left_out = [
        [by_definition(x[groups[0] != g], y, KERNELS[kernel]) for g in range(25)],
        [by_definition(x, y[groups[1] != g], KERNELS[kernel]) for g in range(25)],
    ]
    assert ours.error == pytest.approx(np.sqrt(24 * np.var(left_out, 1).sum()), rel=1e-3)


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_of_gaussians_it_is_its_closed_form(shift):
    d, scale = 3, 1.7
    ours = maximum_mean_discrepancy(
        normal(1, 2000, d) + shift, normal(2, 1500, d), lengthscale=scale
    )
    apart = 1 - np.exp(-d * shift**2 / (2 * (scale**2 + 2)))
    exact = 2 * (scale**2 / (scale**2 + 2)) ** (d / 2) * apart
    assert abs(ours.value - exact) < NUM_ERRORS * ours.error
    assert ("no difference" in repr(ours)) == (shift == 0)


def test_it_is_far_from_the_origin_what_it_is_there():
    x, y = normal(1, 200, 2), normal(2, 200, 2) + 0.5
    near = maximum_mean_discrepancy(x, y)
    far = maximum_mean_discrepancy(x + 1000.0, y + 1000.0)
    assert far.value == pytest.approx(near.value, abs=0.02 * near.error)


@pytest.mark.statistics
def test_p_values_of_exact_draws_are_uniform_and_small_where_sets_differ():
    p_values = [
        maximum_mean_discrepancy(
            normal(s, 60, 2),
            normal(s + 500, 60, 2),
            lengthscale=1.5,
            rng_key=jax.random.key(s),
            num_permutations=99,
        ).p_value
        for s in range(60)
    ]
    assert kstest(p_values, "uniform").pvalue > 1e-3
    wrong = maximum_mean_discrepancy(1.6 * normal(1, 300, 2), normal(2, 300, 2), rng_key=KEY)
    assert wrong.p_value == pytest.approx(1 / 501)
    assert "p = 0.002: the sets differ" in repr(wrong)


@pytest.mark.statistics
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_error_of_mmd_is_that_of_replications(correlation):
    runs = [
        maximum_mean_discrepancy(
            0.7 + chains_of(s, 800, 2, correlation), normal(s + 900, 800, 2), lengthscale=1.5
        )
        for s in range(50)
    ]
    ratio = np.std([r.value for r in runs], ddof=1) / np.mean([r.error for r in runs])
    assert 0.65 < ratio < 1.45


# -- classifier --------------------------------------------------------------------------------


def test_c2st_is_that_of_sbibm():
    """With the seed of the benchmark's own function, written out."""
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    x, y = np.asarray(normal(1, 150, 2) + 0.5, float), np.asarray(normal(2, 150, 2), float)
    ours = classifier_two_sample_test(KEY, x, y)
    mean, std = y.mean(0), y.std(0, ddof=1)
    rows = np.concatenate([(y - mean) / std, (x - mean) / std])
    labels = np.concatenate([np.zeros(150), np.ones(150)])
    judge = MLPClassifier(
        activation="relu",
        hidden_layer_sizes=(20, 20),
        max_iter=1000,
        solver="adam",
        random_state=1,
    )
    folds = KFold(n_splits=5, shuffle=True, random_state=1)
    theirs = cross_val_score(judge, rows, labels, cv=folds, scoring="accuracy").mean()
    assert abs(ours.value - theirs) < NUM_ERRORS * ours.error
    # The best rule asks on which side of the middle a draw is: Φ(|shift| / 2).
    assert abs(ours.value - 0.638) < NUM_ERRORS * ours.error
    assert ours.num_draws == 150


def test_c2st_sees_nothing_in_exact_draws_and_much_in_others():
    same = classifier_two_sample_test(KEY, normal(1, 150, 2), normal(2, 250, 2))
    assert same.num_draws == 150
    assert "no difference is seen" in repr(same)
    apart = classifier_two_sample_test(KEY, normal(1, 100, 2) + 9.0, normal(2, 100, 2))
    assert apart.value > 0.99
    assert "they differ" in repr(apart)
    assert apart.error > 0


def test_c2st_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.neural_network", None)
    with pytest.raises(ImportError, match=r"numpyro_score\[diagnostics\]"):
        classifier_two_sample_test(KEY, normal(1, 100, 2), normal(2, 100, 2))


def test_c2st_refuses_a_component_that_is_the_same():
    reference = normal(2, 100, 2).at[:, 1].set(3.0)
    with pytest.raises(ValueError, match=r"component \(1,\) of an event is the same"):
        classifier_two_sample_test(KEY, normal(1, 100, 2), reference)


# -- what all refuse ---------------------------------------------------------------------------

ALL = {
    "sliced_wasserstein": lambda x, y: sliced_wasserstein(KEY, x, y),
    "mmd": maximum_mean_discrepancy,
    "c2st": lambda x, y: classifier_two_sample_test(KEY, x, y),
}


@pytest.mark.parametrize("compare", ALL.values(), ids=ALL)
def test_refusals(compare):
    x = normal(1, 100, 2)
    with pytest.raises(ValueError, match=r"those of draws have the shape \(2, 1\), .* \(2,\)"):
        compare(x[..., None], x)
    with pytest.raises(ValueError, match=r"reference must have .* n of at least .* got \(5, 2\)"):
        compare(x, x[:5])
    with pytest.raises(FloatingPointError, match=r"1 of the 100 draws .* number 3"):
        compare(x.at[3, 1].set(jnp.nan), x)
    with pytest.raises(ValueError, match="all 100 draws are one and the same"):
        compare(jnp.ones((100, 2)), x)
    with pytest.raises(TypeError, match="reference must hold floating-point numbers"):
        compare(x, jnp.arange(100))


def test_options_out_of_range():
    x = normal(1, 100, 2)
    with pytest.raises(ValueError, match="order must be an integer of at least 1"):
        sliced_wasserstein(KEY, x, x, order=0)
    with pytest.raises(ValueError, match="kernel must be 'rbf' or 'imq', got 'laplace'"):
        maximum_mean_discrepancy(x, x, kernel="laplace")
    with pytest.raises(ValueError, match="lengthscale must be a finite number above 0"):
        maximum_mean_discrepancy(x, x, lengthscale=-1.0)
    still = jnp.concatenate([jnp.zeros((90, 2)), x[:10]])
    with pytest.raises(ValueError, match="their median distance is 0"):
        maximum_mean_discrepancy(still, still)


def test_the_error_of_a_mean_knows_of_correlation():
    values = np.asarray(chains_of(5, 40_000, 1, 0.9))[:, 0]
    exact = np.sqrt(19 / 40_000)  # (1 + ρ) / (1 - ρ)
    assert 0.8 < error_of_mean(values) / exact < 1.2
