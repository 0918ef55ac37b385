"""Coverage of intervals and of random balls: what is exact, and what must be seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from numpyro_score.diagnostics import coverage, expected_coverage
from numpyro_score.diagnostics._ranks import (
    central_coverage,
    holm,
    rank_of_truth,
    shape_in_words,
    uniformity_p_values,
)

KEY = jax.random.key(0)
NUM_ERRORS = 5.0


def exact(seed, num, num_draws, *shape):
    """Draws ``(num, num_draws, *shape)`` of normals, and truths that are exchangeable with them."""
    x = np.random.default_rng(seed).normal(size=(num, num_draws + 1, *shape)).astype(np.float32)
    return x[:, 1:], x[:, 0]


# -- intervals ---------------------------------------------------------------------------------


def test_few_exact_draws_cover_as_told():
    """Intervals between order statistics: no correction for their number is missing."""
    draws, truth = exact(1, 4000, 39)
    result = coverage(draws, truth, probs=(0.5, 0.9))
    assert result.probs == (0.5, 0.9)
    errors = np.sqrt(np.array([0.25, 0.09]) / 4000)
    np.testing.assert_allclose(result.errors, errors, rtol=0.1)
    assert np.all(np.abs(np.subtract(result.coverages, result.probs)) < NUM_ERRORS * errors)
    assert result.ranks.shape == (4000,)
    assert result.ranks.max() == 39


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: 0.7 * x, "too few: draws are too narrow or shifted"),
        (lambda x: x + 0.6, "too few: draws are too narrow or shifted"),
        (lambda x: 1.4 * x, "too many: draws are too wide"),
        (lambda x: x, "as they should"),
    ],
)
def test_what_is_wrong_is_said(change, said):
    draws, truth = exact(2, 600, 99)
    assert said in repr(coverage(change(draws), truth))


def test_components_that_depend_on_each_other_are_no_replications():
    draws, truth = exact(3, 200, 99, 1)
    draws, truth = np.repeat(draws, 50, -1), np.repeat(truth, 50, -1)
    result = coverage(draws, truth)
    np.testing.assert_allclose(result.errors, np.sqrt(np.array([0.25, 0.09]) / 200), rtol=0.2)


def test_of_one_posterior_with_many_components():
    draws, truth = exact(4, 500, 99)
    of_rows = coverage(draws, truth)
    of_columns = coverage(draws.T.reshape(99, 25, 20), truth.reshape(25, 20), axis=0)
    assert of_columns.coverages == of_rows.coverages
    assert of_columns.ranks.shape == (25, 20)


def test_coverage_refuses():
    draws, truth = exact(5, 30, 99, 2)
    with pytest.raises(ValueError, match=r"the shape of truth, \(30, 3\); got .* \(30, 99, 2\)"):
        coverage(draws, np.ones((30, 3), np.float32))
    with pytest.raises(ValueError, match=r"probability 0\.9 needs at least 19 draws, got 10"):
        coverage(draws[:, :10], truth)
    with pytest.raises(ValueError, match="probs must be between 0 and 1, got 90"):
        coverage(draws, truth, probs=(90,))
    with pytest.raises(ValueError, match="at least one probability"):
        coverage(draws, truth, probs=())
    with pytest.raises(FloatingPointError, match="1 numbers of truth are not finite"):
        coverage(draws, jnp.asarray(truth).at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="one and the same for 2 of 60 truths"):
        coverage(jnp.asarray(draws).at[3].set(1.0), truth)
    with pytest.raises(TypeError, match="draws must hold floating-point"):
        coverage(np.ones((3, 4), int), truth)
    with pytest.raises(ValueError, match="axis must be 0 or 1"):
        coverage(draws, truth, axis=2)


# -- ranks -------------------------------------------------------------------------------------


def test_ties_are_in_random_order():
    truth, draws = np.zeros(2000), np.zeros((2000, 99))
    draws[:, :20] = -1.0
    ranks = rank_of_truth(draws, truth, 1, np.random.default_rng(0))
    assert (ranks.min(), ranks.max()) == (20, 99)
    assert uniformity_p_values(ranks - 20, 79, np.random.default_rng(1)) > 0.01


@pytest.mark.parametrize(("num", "num_draws"), [(100, 99), (137, 30), (400, 19)])
def test_p_values_of_uniform_ranks_are_no_smaller_than_uniform(num, num_draws):
    random = np.random.default_rng(0)
    ranks = random.integers(0, num_draws + 1, size=(num, 200))
    p_values = uniformity_p_values(ranks, num_draws, random)
    for level in (0.01, 0.05, 0.2):
        allowed = level * 200 + 4 * np.sqrt(level * 200)
        assert level * 200 / 4 < np.sum(p_values < level) + 3 < allowed + 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda u: u**1.5, "draws are too large"),
        (lambda u: u ** (2 / 3), "draws are too small"),
        (lambda u: 0.5 + 0.5 * np.sign(u - 0.5) * np.abs(2 * u - 1) ** 1.5, "too wide"),
        (lambda u: 0.5 + 0.5 * np.sign(u - 0.5) * np.abs(2 * u - 1) ** 0.6, "too narrow"),
    ],
)
def test_the_shape_of_ranks_is_said(change, said):
    ranks = np.floor(100 * change(np.random.default_rng(1).uniform(size=500))).astype(int)
    assert said in shape_in_words(ranks, 99)
    assert uniformity_p_values(ranks, 99, np.random.default_rng(2)) < 1e-3


def test_holm_is_that_of_a_textbook():
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])


def test_all_covered_has_an_error_all_the_same():
    _, error, exact_coverage = central_coverage(np.full(50, 49), 99, 0.9)
    assert error == pytest.approx(np.sqrt(0.09 / 50))
    assert exact_coverage == pytest.approx(0.9)


# -- random balls ------------------------------------------------------------------------------


@pytest.mark.statistics
def test_p_values_of_exact_posteriors_are_uniform():
    p_values = [
        expected_coverage(jax.random.key(s), *exact(s, 100, 49, 2)).p_value for s in range(100)
    ]
    assert kstest(p_values, "uniform").pvalue > 1e-3


def test_the_curve_of_exact_posteriors_is_the_diagonal():
    draws, truth = exact(7, 2000, 99, 3)
    result = expected_coverage(KEY, draws, truth)
    error = np.sqrt(result.credibility * (1 - result.credibility) / 2000)
    away = np.abs(result.coverage - result.credibility)
    assert np.all(away <= NUM_ERRORS * error + 1 / 2000)
    assert "as it should be" in repr(result)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: 0.6 * x, "too narrow"),
        (lambda x: x + 1.0, "shifted"),
        (lambda x: 1.7 * x, "too wide"),
    ],
)
def test_wrong_posteriors_are_seen(change, said):
    draws, truth = exact(8, 600, 99, 2)
    result = expected_coverage(KEY, change(draws), truth)
    assert result.p_value < 1e-3
    assert said in repr(result)


def test_narrow_posteriors_far_from_the_references_are_not_called_shifted():
    """A narrow posterior far from the reference points has as many f near 0 as near 1."""
    for seed in range(10):
        draws, truth = exact(20 + seed, 300, 99, 2)
        where = 10 * np.random.default_rng(seed).normal(size=truth.shape).astype(np.float32)
        result = expected_coverage(KEY, where[:, None] + 0.5 * draws, where + truth)
        assert result.p_value < 1e-3
        assert "as of draws that are too narrow, or shifted" in repr(result)


def test_it_sees_a_dependence_that_no_component_shows():
    """Both components of the draws are right, and their correlation has the wrong sign."""
    draws, truth = exact(9, 1500, 99, 2)
    mix = np.array([[1.0, 0.0], [0.95, np.sqrt(1 - 0.95**2)]], np.float32)
    draws, truth = draws @ mix.T, truth @ mix.T
    wrong = draws * np.array([1.0, -1.0], np.float32)
    assert "as they should" in repr(coverage(wrong, truth))
    assert expected_coverage(KEY, draws, truth).p_value > 0.01
    assert expected_coverage(KEY, wrong, truth).p_value < 1e-3


def test_points_that_depend_on_data_see_a_posterior_that_does_not():
    random = np.random.default_rng(10)
    truth = random.normal(size=(800, 2)).astype(np.float32)
    data = truth + 0.5 * random.normal(size=(800, 2)).astype(np.float32)
    prior = random.normal(size=(800, 99, 2)).astype(np.float32)
    assert expected_coverage(KEY, prior, truth).p_value > 0.01
    assert expected_coverage(KEY, prior, truth, references=data).p_value < 1e-3


def test_sites_are_joined():
    draws, truth = exact(11, 100, 49, 3)
    by_site = (
        {"a": draws[..., 0], "b": draws[..., 1:]},
        {"a": truth[..., 0], "b": truth[..., 1:]},
    )
    whole = expected_coverage(KEY, draws, truth)
    assert expected_coverage(KEY, *by_site).p_value == whole.p_value


def test_expected_coverage_refuses():
    draws, truth = exact(12, 30, 20, 2)
    with pytest.raises(ValueError, match="at least 20 replications, got 10"):
        expected_coverage(KEY, draws[:10], truth[:10])
    with pytest.raises(ValueError, match=r"must hold the same sites, got \['a'\] and \['b'\]"):
        expected_coverage(KEY, {"a": draws}, {"b": truth})
    with pytest.raises(ValueError, match="1 components of the truth are the same"):
        expected_coverage(KEY, draws, truth * np.array([1.0, 0.0], np.float32))
    with pytest.raises(ValueError, match=r"references must be an array of the shape of truth"):
        expected_coverage(KEY, draws, truth, references=truth[:, 0])
    with pytest.raises(ValueError, match="the shape of truth"):
        expected_coverage(KEY, draws.swapaxes(0, 1), truth)
