"""The kernel Stein discrepancy against its definition and exact expectations."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.integrate import quad
from scipy.stats import chi2

from numpyro_score.diagnostics import _stein_kernel, kernel_stein_discrepancy
from numpyro_score.diagnostics._lengthscale import median_distance
from numpyro_score.distributions import EnergyDistribution, ScoreDistribution

KEY = jax.random.key(0)
NUM_ERRORS = 5.0
LENGTHSCALE = 1.7


def skewed(x):
    return jnp.stack([-x[0] + 0.3 * x[1] ** 2, jnp.sin(x[1]) - x[1], -0.5 * x[2] + x[0]])


def normal(x):
    return -x


def definition(score, draws):
    """The Stein kernel of all pairs, by derivatives of the kernel."""

    def k(x, y):
        return 1 / jnp.sqrt(1 + jnp.sum((x - y) ** 2) / LENGTHSCALE**2)

    def u(x, y):
        cross = jax.jacfwd(jax.grad(k, 1), 0)(x, y)
        return (
            score(x) @ score(y) * k(x, y)
            + score(x) @ jax.grad(k, 1)(x, y)
            + score(y) @ jax.grad(k, 0)(x, y)
            + jnp.trace(cross)
        )

    every = jax.jit(lambda x: jax.vmap(lambda x_i: jax.vmap(lambda x_j: u(x_i, x_j))(x))(x))
    return np.asarray(every(draws), np.float64)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of seven rows, the last with padding."""
    monkeypatch.setattr(_stein_kernel, "BLOCK", 7)
    jax.clear_caches()
    yield
    jax.clear_caches()


def draws_and_kernel():
    draws = 3.0 + 2.0 * jax.random.normal(KEY, (41, 3))
    return draws, definition(skewed, draws)


def test_it_is_its_definition(small_blocks):
    draws, u = draws_and_kernel()
    n = len(draws)
    given = {"lengthscale": LENGTHSCALE}
    v_statistic = kernel_stein_discrepancy(skewed, draws, **given)
    np.testing.assert_allclose(v_statistic.value, np.sqrt(u.mean()), rtol=1e-4)
    np.testing.assert_allclose(v_statistic.chance, np.sqrt(u.trace() / n**2), rtol=1e-4)
    u_statistic = kernel_stein_discrepancy(skewed, draws, statistic="U", **given)
    exact = (u.sum() - u.trace()) / (n * (n - 1))
    np.testing.assert_allclose(u_statistic.squared, exact, rtol=1e-4)
    np.testing.assert_allclose(u_statistic.value, np.sqrt(exact), rtol=1e-4)
    assert v_statistic.squared == u_statistic.squared
    incomplete = kernel_stein_discrepancy(
        skewed, draws, statistic="U", num_diagonals=2, **given
    )  # shifts 10 and 20
    pairs = [u[i, (i + shift) % n] for shift in (10, 20) for i in range(n)]
    np.testing.assert_allclose(incomplete.squared, np.mean(pairs), rtol=1e-4)


@pytest.mark.parametrize("fault", ["no trace", "half of a cross term"])
def test_a_fault_of_the_kernel_would_be_seen(fault, monkeypatch):
    draws, u = draws_and_kernel()
    right = _stein_kernel._kernel

    def wrong(scores, apart, distance, size, square):
        if fault == "no trace":
            return right(scores, apart, distance, 0, square)
        return right(scores, apart / 2, distance, size, square)

    monkeypatch.setattr(_stein_kernel, "_kernel", wrong)
    jax.clear_caches()
    ours = kernel_stein_discrepancy(skewed, draws, statistic="U", lengthscale=LENGTHSCALE)
    jax.clear_caches()
    exact = (u.sum() - u.trace()) / (len(u) * (len(u) - 1))
    assert abs(ours.squared / exact - 1) > 1e-3


@pytest.mark.parametrize("matrix", ["diagonal", "dense", "given"])
def test_a_preconditioner_is_a_change_of_coordinates(matrix):
    root = np.array([[2.0, 0.0], [1.5, 0.5]])
    z = jax.random.normal(KEY, (300, 2))
    x = z @ root.T
    covariance = {"diagonal": np.diag(np.var(x, 0, ddof=1)), "dense": np.cov(x.T)}.get(
        matrix, root @ root.T
    )
    inverse = np.linalg.inv(np.linalg.cholesky(covariance))
    plain = kernel_stein_discrepancy(-x @ np.linalg.inv(inverse), x @ inverse.T)
    given = covariance if matrix == "given" else matrix
    ours = kernel_stein_discrepancy(-x, x, preconditioner=given)
    np.testing.assert_allclose(ours.value, plain.value, rtol=1e-4)
    np.testing.assert_allclose(ours.squared_error, plain.squared_error, rtol=1e-3)


def test_the_lengthscale_is_that_of_all_chains():
    """Of 1,800 draws the first 1,000 were looked at, which are those of the first chain."""
    rows = np.random.default_rng(0).normal(size=(1800, 2)) * np.repeat([1.0, 30.0], 900)[:, None]
    assert median_distance(rows) == pytest.approx(median_distance(rows[::-1]), rel=0.1)


def expected_square(sd, size, lengthscale):
    """E u for independent draws of N(0, sd² I) under the score of N(0, I), by one integral.

    x - y and x + y are independent; x·y is a quarter of the difference of their squares.
    """

    def integrand(q):
        r = 2 * sd**2 * q
        k = (1 + r / lengthscale**2) ** -0.5
        trace = size * k**3 / lengthscale**2 - 3 * r * k**5 / lengthscale**4
        inner = (2 * sd**2 * size - r) / 4
        return (inner * k - r * k**3 / lengthscale**2 + trace) * chi2.pdf(q, size)

    return quad(integrand, 0, np.inf)[0]


def test_exact_on_gaussians_and_its_standard_error_is_that_of_replications():
    """In each of 100 runs: for draws of the density, where u has no first-order term, and not."""
    assert abs(expected_square(1.0, 4, 2.0)) < 1e-8
    z = np.random.default_rng(0).normal(size=(100, 200, 4)).astype(np.float32)
    for sd in (1.0, 1.3):
        for options in ({}, {"num_diagonals": 5}):
            runs = [
                kernel_stein_discrepancy(-sd * x, sd * x, statistic="U", lengthscale=2.0, **options)
                for x in z
            ]
            squares = np.array([run.squared for run in runs])
            off = squares.mean() - expected_square(sd, 4, 2.0)
            assert abs(off) < NUM_ERRORS * squares.std() / 10
            # The sd of 100 runs is known to 7 %; that of squares of normals to about 12 %.
            errors = np.sqrt(np.mean([run.squared_error**2 for run in runs]))
            assert abs(errors / squares.std() - 1) < 0.4
            assert sd != 1.0 or np.mean([run.degenerate for run in runs]) > 0.95


def test_scores_may_be_given_as_numbers_and_as_distributions_and_chains_are_pooled():
    draws = jax.random.normal(KEY, (48, 2, 3))
    expected = kernel_stein_discrepancy(normal, draws, event_dim=2).value
    chains = draws.reshape(4, 12, 2, 3)
    condition = jnp.zeros((48, 1))
    conditional = {"event_shape": (2, 3), "condition": condition}
    found = [
        kernel_stein_discrepancy(-draws, draws, event_dim=2),
        kernel_stein_discrepancy(-draws.reshape(48, 6), draws.reshape(48, 6)),
        kernel_stein_discrepancy(normal, chains, event_dim=2),
        kernel_stein_discrepancy(-chains, chains, event_dim=2),
        kernel_stein_discrepancy(dist.Normal(jnp.zeros((2, 3)), 1).to_event(2), chains),
        kernel_stein_discrepancy(EnergyDistribution(lambda x: 0.5 * jnp.sum(x**2), (2, 3)), chains),
        kernel_stein_discrepancy(ScoreDistribution(lambda x, c: c[0] - x, **conditional), draws),
    ]
    np.testing.assert_allclose([run.value for run in found], expected, rtol=1e-5)


@pytest.mark.parametrize("score", [normal, "numbers"], ids=["function", "numbers"])
def test_chains_of_vectors_are_not_taken_for_images_nor_images_for_chains(score):
    """Four chains of 500 draws, read as four points in 1,000 dimensions, would pass unnoticed."""
    draws = jax.random.normal(KEY, (4, 500, 2))
    score = -draws if score == "numbers" else score
    readings = r"4 events of shape \(500, 2\), or 4 chains of 500 events .* event_dim=2 for the one"
    with pytest.raises(ValueError, match=readings):
        kernel_stein_discrepancy(score, draws)
    found = [kernel_stein_discrepancy(score, draws, event_dim=n).num_draws for n in (1, 2)]
    assert found == [2_000, 4]


def test_each_draw_has_its_own_condition():
    condition = jnp.arange(60.0)[:, None]
    draws = condition + jax.random.normal(KEY, (60, 1))
    moved = ScoreDistribution(lambda x, c: c - x, (1,), condition=condition)
    by_chain = ScoreDistribution(lambda x, c: c - x, (1,), condition=condition.reshape(3, 20, 1))
    expected = kernel_stein_discrepancy(condition - draws, draws).value
    ours = (
        kernel_stein_discrepancy(moved, draws).value,
        kernel_stein_discrepancy(by_chain, draws.reshape(3, 20, 1)),
    )
    np.testing.assert_allclose([float(x) for x in ours], expected, rtol=1e-5)


def test_a_constrained_density_is_compared_in_its_unconstrained_coordinates():
    """Else a density that does not vanish at the border has a discrepancy for draws of itself."""
    draws = dist.Exponential(2.0).sample(KEY, (500,))
    ours = kernel_stein_discrepancy(dist.Exponential(2.0), draws)
    z = jnp.log(draws)[:, None]
    np.testing.assert_allclose(
        ours.value, kernel_stein_discrepancy(1 - 2 * jnp.exp(z), z).value, rtol=1e-4
    )
    assert ours.degenerate
    with pytest.raises(ValueError, match="1 of 500 do not"):
        kernel_stein_discrepancy(dist.Exponential(2.0), draws.at[3].set(-1.0))


def test_it_falls_with_the_root_of_the_number_of_good_draws():
    draws = jax.random.normal(KEY, (4_096, 2))
    few, many = (
        kernel_stein_discrepancy(normal, draws[:n], lengthscale=1.0).value for n in (256, 4_096)
    )
    assert 2.5 < few / many < 6.0


FAULTS = {
    "sign": lambda x: x,
    "scale": lambda x: -0.5 * x,
    "shift": lambda x: -(x - 0.2),
    "curl": lambda x: -x + 0.3 * x[:, ::-1],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_score_is_seen(fault):
    draws = jax.random.normal(KEY, (4_096, 2))
    good = kernel_stein_discrepancy(-draws, draws)
    bad = kernel_stein_discrepancy(FAULTS[fault](draws), draws)
    assert bad.value > 3 * good.value
    assert "no more than chance" in repr(good)
    assert "disagree" in repr(bad)


def test_refusals():
    draws = jax.random.normal(KEY, (10, 2))

    def refuses(error, match, score=normal, draws=draws, **options):
        with pytest.raises(error, match=match):
            kernel_stein_discrepancy(score, draws, **options)

    refuses(ValueError, "n of at least 2", draws=draws[:1])
    refuses(ValueError, r"the shape of a draw, \(2,\); got \(\)", jnp.sum)
    refuses(ValueError, r"with the event_shape \(3,\)", dist.Normal(jnp.zeros(3), 1).to_event(1))
    refuses(ValueError, "a condition for each draw", dist.Normal(jnp.zeros(2), 1))
    refuses(ValueError, r"chains, draws.*got \(1, 1, 10, 2\)", draws=draws[None, None], event_dim=1)
    refuses(FloatingPointError, "a draw is not finite", draws=draws.at[0, 0].set(jnp.nan))
    refuses(FloatingPointError, "a score is not finite", lambda x: x / 0.0)
    refuses(ValueError, "all one and the same", draws=jnp.ones((10, 2)), lengthscale=1.0)
    stuck = jnp.concatenate([jnp.zeros((40, 2)), draws])
    refuses(ValueError, "a chain that did not move", draws=stuck)
    refuses(ValueError, "lengthscale must be a finite number above 0", lengthscale=-1.0)
    refuses(ValueError, 'statistic must be "V" or "U"', statistic="W")
    refuses(ValueError, 'give statistic="U"', num_diagonals=2)
    refuses(ValueError, "at most .* 4 for 10 draws", statistic="U", num_diagonals=5)
    refuses(ValueError, "None, 'diagonal', 'dense' or a matrix", preconditioner="full")
    refuses(ValueError, "needs 2 draws per dimension", draws=draws[:3], preconditioner="dense")
    refuses(ValueError, "shape \\(2, 2\\)", preconditioner=np.eye(3))
    refuses(ValueError, "not positive definite", preconditioner=-np.eye(2))
    flat = draws.at[:, 1].set(0.0)
    refuses(
        ValueError, "coordinate 1 of the draws is constant", draws=flat, preconditioner="diagonal"
    )
    refuses(TypeError, "must hold floating-point numbers", draws=jnp.ones((10, 2), int))
