"""Densities and scores in the plane: that what is shown is what is there, at its place."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.distributions.transforms import AffineTransform

from numpyro_score.distributions import EnergyDistribution, ScoreDistribution
from numpyro_score.networks import EnergyMLP
from numpyro_score.plotting import plot_density, plot_score

MEAN, SD = jnp.array([1.0, -2.0]), jnp.array([0.5, 2.0])
NORMAL = dist.Normal(MEAN, SD).to_event(1)
EXTENT = (-1.0, 3.0, -8.0, 4.0)
ENERGY = EnergyDistribution(lambda x: 0.5 * jnp.sum(((x - MEAN) / SD) ** 2), event_shape=(2,))
SCORE = ScoreDistribution(lambda x: (MEAN - x) / SD**2, event_shape=(2,))
BOTH = pytest.mark.parametrize("plot", [plot_density, plot_score])


def test_density_is_right_at_each_point(figure_axes):
    ax = plot_density(NORMAL, extent=EXTENT, num_points=40, ax=figure_axes)
    shown = np.asarray(ax.images[0].get_array())
    assert ax is figure_axes
    assert ax.images[0].get_extent() == list(EXTENT)
    assert ax.images[0].origin == "lower"
    x = -1 + 4 * (np.arange(40) + 0.5) / 40
    y = -8 + 12 * (np.arange(40) + 0.5) / 40
    expected = np.exp(-0.5 * ((x - 1) / 0.5) ** 2 - 0.5 * ((y[:, None] + 2) / 2) ** 2)
    np.testing.assert_allclose(shown, expected / (2 * np.pi), rtol=1e-4, atol=1e-6)
    assert ax.figure.axes[-1].get_ylabel() == "density"


def test_an_unnormalized_density_is_told_as_part_of_its_peak(figure_axes):
    ax = plot_density(ENERGY, extent=EXTENT, num_points=30, ax=figure_axes)
    assert np.max(ax.images[0].get_array()) == 1.0
    assert ax.figure.axes[-1].get_ylabel() == "density / its peak"
    known = plot_density(ENERGY.with_log_normalizer(1.0), extent=EXTENT, ax=figure_axes)
    assert known.figure.axes[-1].get_ylabel() == "density"


def test_an_unnormalized_density_inside_of_another_is_none_either(figure_axes):
    wrapped = dist.TransformedDistribution(ENERGY, AffineTransform(0.0, 1.0))
    ax = plot_density(wrapped, extent=EXTENT, num_points=30, ax=figure_axes)
    assert ax.figure.axes[-1].get_ylabel() == "density / its peak"


def test_nothing_is_shown_outside_of_the_support(figure_axes):
    positive = EnergyDistribution(
        lambda x: jnp.sum(x - jnp.log(x)), event_shape=(2,), support=constraints.positive
    )
    ax = plot_density(positive, extent=(-1, 1, -1, 1), num_points=10, ax=figure_axes)
    missing = np.ma.getmaskarray(np.ma.masked_invalid(ax.images[0].get_array()))
    assert (missing == ((np.arange(10) < 5) | (np.arange(10) < 5)[:, None])).all()
    ax = plot_score(positive, extent=(-1, 1, -1, 1), num_points=10, ax=figure_axes)
    assert len(ax.collections[-1].get_offsets()) == 25


@pytest.mark.parametrize("what", [NORMAL, ENERGY, SCORE])
def test_arrows_point_along_the_score(figure_axes, what):
    ax = plot_score(what, extent=EXTENT, num_points=8, ax=figure_axes)
    arrows = ax.collections[0]
    at = np.asarray(arrows.get_offsets())
    score = (np.asarray(MEAN) - at) / np.asarray(SD) ** 2
    size = np.linalg.norm(score, axis=1)
    factor = 1 / (size + np.median(size))
    np.testing.assert_allclose(arrows.U, score[:, 0] * factor, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(arrows.V, score[:, 1] * factor, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(arrows.get_array(), size, rtol=1e-3)
    assert arrows.angles == "xy"


def test_frame_is_that_of_the_rows_and_axes_have_the_names_of_the_columns(figure_axes):
    network = EnergyMLP(2, width=4, columns=("age", "dose"), key=jax.random.key(0))
    learned = EnergyDistribution(network, event_shape=(2,))
    data, draws = jnp.array([[0.0, 0.0], [1.0, 2.0]]), jnp.full((2, 3, 2), -1.0)
    ax = plot_density(learned, data=data, draws=draws, num_points=5, ax=figure_axes)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("age", "dose")
    np.testing.assert_allclose(ax.get_xlim(), (-1.2, 1.2))
    np.testing.assert_allclose(ax.get_ylim(), (-1.3, 2.3))
    points, found = ax.collections
    np.testing.assert_array_equal(points.get_offsets(), data)
    assert len(found.get_offsets()) == 6
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["data", "draws"]
    # A score on top keeps the frame.
    plot_score(learned, num_points=3, color="white", ax=ax)
    np.testing.assert_allclose(ax.get_xlim(), (-1.2, 1.2))


def test_many_rows_are_thinned_over_all_of_them(figure_axes):
    data = jnp.stack([jnp.linspace(0, 1, 10_001), jnp.linspace(1, 0, 10_001)], 1)
    ax = plot_score(NORMAL, data=data, num_points=3, ax=figure_axes)
    shown = np.asarray(ax.collections[-1].get_offsets())
    assert 400 < len(shown) <= 500
    assert shown[0, 0] == 0
    assert shown[-1, 0] > 0.99


@BOTH
@pytest.mark.parametrize(
    ("what", "options", "error", "message"),
    [
        (lambda x: x, {}, TypeError, "EnergyDistribution"),
        (dist.Normal(jnp.zeros(3), 1.0).to_event(1), {}, ValueError, r"event_shape \(2,\)"),
        (dist.Normal(jnp.zeros(2), 1.0), {}, ValueError, r"event_shape \(2,\)"),
        (dist.Normal(jnp.zeros((3, 2)), 1.0).to_event(1), {}, ValueError, "one condition"),
        (NORMAL, {}, ValueError, "where to look"),
        (NORMAL, {"extent": (1, 0, 0, 1)}, ValueError, "left < right"),
        (NORMAL, {"extent": (0, 1)}, ValueError, "left, right, bottom, top"),
        (NORMAL, {"data": jnp.ones((5, 3))}, ValueError, r"data must have the shape"),
        (NORMAL, {"draws": jnp.full((5, 2), jnp.nan)}, ValueError, "10 numbers are not"),
        (NORMAL, {"extent": EXTENT, "num_points": 1}, ValueError, "num_points"),
    ],
)
def test_what_cannot_be_shown_is_refused(plot, what, options, error, message):
    with pytest.raises(error, match=message):
        plot(what, **options)


@BOTH
def test_a_density_that_is_no_number_is_refused(plot):
    broken = EnergyDistribution(lambda x: jnp.nan * jnp.sum(x), event_shape=(2,))
    with pytest.raises(FloatingPointError, match=r"at \d+ of \d+ points|such as"):
        plot(broken, extent=EXTENT, num_points=4)
