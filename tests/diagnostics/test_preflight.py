"""``check``: planted faults are caught, a healthy distribution is not."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import Array
from jax.scipy.special import logsumexp
from numpyro.distributions import constraints

from numpyro_score.diagnostics import Finding, Findings, check
from numpyro_score.diagnostics._data_findings import stein_findings
from numpyro_score.diagnostics._density_findings import jacobian_finding, normalizer_finding
from numpyro_score.diagnostics._proposals import Proposals
from numpyro_score.diagnostics._stein_findings import LEVEL, stein_finding
from numpyro_score.diagnostics._subject import Subject
from numpyro_score.distributions import (
    DensityDistribution,
    EnergyDistribution,
    ScoreDistribution,
)
from numpyro_score.networks import from_distribution

KEY = jax.random.key(3)
NUM_ROWS = 600
CENTRES = jnp.array([[-3.0, 0.0], [3.0, 1.0]])
WEIGHT = 0.3
LOG_NORMALIZER = float(np.log(2 * np.pi))


class Modes(eqx.Module):
    """Energy of two modes, with the faults that it may be given; compiled once for all of them."""

    weight: Array
    sign: Array
    scale: Array
    radius: Array

    def __call__(self, x):
        """Return the energy; beyond the radius it is flat."""
        x = x / self.scale
        log_weights = jnp.log(jnp.array([self.weight, 1 - self.weight]))
        energy = -logsumexp(log_weights - 0.5 * jnp.sum((x - CENTRES) ** 2, -1))
        return self.sign * jnp.minimum(energy, self.radius)


def modes(weight=WEIGHT, sign=1.0, scale=1.0, radius=1e9, **options):
    fields = (jnp.asarray(value) for value in (weight, sign, scale, radius))
    return EnergyDistribution(Modes(*fields), (2,), **options)


def rows_of_modes(key, num=NUM_ROWS):
    which, noise = jax.random.split(key)
    first = jax.random.uniform(which, (num, 1)) < WEIGHT
    return jnp.where(first, *CENTRES) + jax.random.normal(noise, (num, 2))


DATA = rows_of_modes(KEY)


def failed(table):
    assert "✗" in repr(table)
    return {row.name for row in table.failed}


DRAWS = "data against data moved by MALA (p-value)"
STEIN = "Stein test (p-value)"
SCALE = "scale: mean of -z·score / d"
FISHER = "Fisher divergence less a Gaussian's"
TAILS = "tails: share of bad rays"


@pytest.mark.statistics
@pytest.mark.parametrize(
    ("fault", "by"),
    [
        ({"sign": -1.0}, {TAILS, SCALE, STEIN, FISHER}),
        ({"scale": 0.5}, {STEIN, FISHER, DRAWS}),
        ({"weight": 1e-6}, {DRAWS}),
        ({"weight": 0.6}, {DRAWS}),
        ({"radius": 30.0}, {TAILS}),
    ],
    ids=["score sign", "scale 1/2", "missing mode", "weight of a mode", "improper tail"],
)
def test_a_planted_fault_is_caught(fault, by, capsys):
    table = check(modes(**fault), DATA, key=KEY)
    assert by <= failed(table)
    assert capsys.readouterr().out.strip() == repr(table)
    # Each has a line that says what to do.
    assert all(row.advice for row in table.failed)


@pytest.mark.statistics
def test_a_healthy_distribution_raises_nothing(capsys):
    """The heavy version, 50 seeds of four distributions, has been run by hand."""
    for seed in range(3):
        key = jax.random.key(seed)
        table = check(modes(), rows_of_modes(key), key=key, verbose=False)
        assert table.passed, table
        assert all(row.passed is True for row in table), table
    assert capsys.readouterr().out == ""


@pytest.mark.statistics
def test_rows_may_be_sorted():
    """Of 2,400 rows, halves of 1,000 are compared."""
    rows = rows_of_modes(KEY, 2_400)
    rows = rows[jnp.argsort(rows[:, 0])]
    table = check(modes(), rows, key=KEY, verbose=False)
    assert all(row.passed is True for row in table), table
    assert DRAWS in failed(check(modes(weight=0.6), rows, key=KEY, verbose=False))


class Field(eqx.Module):
    """The score of a correlated normal, with a sign and a curl."""

    sign: Array
    curl: Array

    def __call__(self, x):
        """Return the score."""
        precision = jnp.array([[2.0, 0.6], [0.6, 1.0]])
        turn = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
        return self.sign * (self.curl * turn - precision) @ x


@pytest.mark.statistics
def test_sign_and_curl_of_a_score_are_caught():
    precision = jnp.array([[2.0, 0.6], [0.6, 1.0]])
    data = dist.MultivariateNormal(precision_matrix=precision).sample(KEY, (NUM_ROWS,))

    def table(sign, curl):
        field = Field(jnp.asarray(sign), jnp.asarray(curl))
        return check(ScoreDistribution(field, (2,)), data, key=KEY, verbose=False)

    healthy = table(1.0, 0.0)
    assert all(row.passed is True for row in healthy), healthy
    assert {TAILS, SCALE, STEIN} <= failed(table(-1.0, 0.0))
    assert "curl of the score" in failed(table(1.0, 0.5))


class LogNormal(eqx.Module):
    """Energy of x > 0 whose logarithm is normal; without its Jacobian, where that is 0."""

    jacobian: Array

    def __call__(self, x):
        """Return the energy."""
        return jnp.sum(2 * (jnp.log(x) - 0.3) ** 2 + self.jacobian * jnp.log(x))


@pytest.mark.statistics
def test_a_dropped_jacobian_is_caught():
    data = jnp.exp(0.3 + 0.5 * jax.random.normal(KEY, (NUM_ROWS, 2)))

    def table(jacobian):
        network = LogNormal(jnp.asarray(jacobian))
        distribution = EnergyDistribution(network, (2,), support=constraints.positive)
        return check(distribution, data, key=KEY, verbose=False)

    assert table(1.0).passed
    assert {STEIN, FISHER, DRAWS} <= failed(table(0.0))


def test_the_density_of_proposals_is_that_of_their_mixture():
    q = Proposals.around(DATA, wide=True)
    x = q.sample(KEY, 5)
    parts = [
        share * jnp.exp(dist.Normal(q.centres, q.scale * width).to_event(1).log_prob(x[:, None]))
        for share, width in ((1 - q.wide, q.width), (q.wide, 3 * q.width))
    ]
    exact = jnp.log(jnp.mean(sum(parts), 1))
    np.testing.assert_allclose(q.log_density(x), exact, atol=1e-4)


class NoJacobian(dist.transforms.ExpTransform):
    """A transform that forgets its Jacobian."""

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.zeros_like(x)


def test_the_jacobian_of_a_transform_is_caught():
    data = jnp.exp(jax.random.normal(KEY, (50, 3)))
    base = dist.Normal(jnp.zeros(3), 1.0).to_event(1)

    def finding(transform):
        return jacobian_finding(Subject(dist.TransformedDistribution(base, transform), data))[0]

    assert finding(dist.transforms.ExpTransform()).passed
    assert finding(NoJacobian()).passed is False


def test_a_wrong_normalizer_is_caught():
    def finding(log_normalizer):
        distribution = modes(log_normalizer=log_normalizer)
        return normalizer_finding(KEY, Subject(distribution, DATA))[0]

    right = finding(LOG_NORMALIZER)
    assert right.passed
    assert abs(right.value) < 4 * right.error
    wrong = finding(0.0)
    assert wrong.passed is False
    assert abs(wrong.value - LOG_NORMALIZER) < 4 * wrong.error
    assert normalizer_finding(KEY, Subject(modes(), DATA)) == []


@pytest.mark.statistics
def test_a_condition_for_each_row_and_an_exact_sampler():
    condition = jnp.sort(jax.random.normal(KEY, (NUM_ROWS, 2)), 0)
    data = condition + jax.random.normal(jax.random.key(7), (NUM_ROWS, 2))
    network = from_distribution(lambda p, c: dist.Normal(p * c, 1.0).to_event(1), jnp.ones(2))
    table = check(DensityDistribution(network, (2,), condition=condition), data, verbose=False)
    assert table.passed
    assert table["data against draws of its sampler (p-value)"].passed
    network = from_distribution(lambda p, c: dist.Normal(p * c, 1.0).to_event(1), -jnp.ones(2))
    wrong = DensityDistribution(network, (2,), condition=condition)
    assert {"data against draws of its sampler (p-value)", STEIN} <= failed(
        check(wrong, data, verbose=False)
    )


def test_a_shift_of_the_widest_coordinate_is_seen():
    scales = np.array([1.0, 100.0])
    z = np.random.default_rng(0).normal(size=(500, 2))

    def p_value(shift):
        points = scales * (z + np.array([0.0, shift]))
        return stein_finding(KEY, points, -points / scales**2, "", "rows").value

    assert p_value(0.0) > LEVEL
    assert p_value(0.5) < LEVEL


def test_few_rows_and_numbers_that_are_not_finite_are_told():
    _, stein = stein_findings(KEY, Subject(modes(), DATA[:30]))
    assert stein.passed is None
    assert stein.advice == "30 rows of data are fewer than 50"
    broken = EnergyDistribution(lambda x: jnp.sum(jnp.log(x)), (2,))
    table = check(broken, DATA[:30], verbose=False)
    assert len(table) == 2
    assert not table.passed


def test_refusals():
    with pytest.raises(TypeError, match="check takes a distribution, got function"):
        check(lambda x: x, DATA)
    with pytest.raises(ValueError, match=r"data must have the shape \(n, \*event_shape\)"):
        check(modes(), DATA[0])
    with pytest.raises(ValueError, match="n of at least 20"):
        check(modes(), DATA[:10])
    with pytest.raises(ValueError, match="all one and the same"):
        check(modes(), jnp.ones((30, 2)))
    with pytest.raises(FloatingPointError, match="not finite"):
        check(modes(), DATA.at[0].set(jnp.nan))
    with pytest.raises(ValueError, match="needs a density of real numbers"):
        check(dist.Poisson(1.0), jnp.ones(30))


def test_the_table_is_aligned_and_narrow():
    rows = (
        Finding("short", 0.123456, 0.01, (-np.inf, 1.0), True),
        Finding("a much longer name than that", 12345.6, passed=False, advice="word " * 40),
        Finding("unknown", np.nan, advice="it was not collected"),
    )
    table = Findings("a title", rows)
    lines = repr(table).splitlines()
    assert max(map(len, lines)) <= 100
    assert [line[1] for line in lines if line[1] in "✓✗?"] == ["✓", "✗", "?"]
    assert "0.123 ± 0.010  ≤ 1" in lines[2]
    assert lines[-1] == "✓ 1 fine, ✗ 1 failed, ? 1 cannot be told"
    assert table["short"].passed
    with pytest.raises(KeyError, match="no row 'other'"):
        table["other"]


def test_a_terminal_without_these_signs_gets_ascii(monkeypatch):
    import io
    import sys

    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    Findings("a title", (Finding("x", 1.0, 0.1, (-np.inf, 2.0), True),)).show()
    out.flush()
    assert b"+  x  1.00 ~ 0.10  < 2" in out.buffer.getvalue()
