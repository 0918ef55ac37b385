"""The posterior of an image, panel by panel; and Matplotlib that is missing."""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from numpyro_score.plotting import plot_image_posterior

DRAWS = np.random.default_rng(0).normal(size=(2, 200, 6))


def shown(ax):
    return np.asarray(ax.images[0].get_array())


@pytest.fixture(scope="module")
def panels():
    truth = DRAWS.mean((0, 1))
    truth[1], truth[5] = 9.0, -9.0
    axes = plot_image_posterior(
        DRAWS, image_shape=(2, 3), truth=truth, observation=np.arange(6.0), num_draws=3
    )
    yield {ax.get_title(): ax for ax in axes}
    axes[0].figure.canvas.draw()
    plt.close("all")


def test_panels_are_named_and_hold_what_they_say(panels):
    titles = ["draw, chain 1", "draw, chain 2", "draw -2, chain 1"]
    titles = ["truth", "observation", "posterior mean", *titles, "posterior sd"]
    assert list(panels) == [*titles, "67% in 90% interval"]
    images = DRAWS.reshape(2, 200, 2, 3)
    expected = {
        "observation": np.arange(6.0).reshape(2, 3),
        "posterior mean": images.mean((0, 1)),
        "draw, chain 1": images[0, -1],
        "draw, chain 2": images[1, -1],
        "draw -2, chain 1": images[0, -2],
        "posterior sd": images.std((0, 1)),
    }
    for title, image in expected.items():
        np.testing.assert_allclose(shown(panels[title]), image, err_msg=title)


def test_images_share_one_scale_and_sd_starts_at_nothing(panels):
    scales = {
        panels[title].images[0].get_clim() for title in ("truth", "posterior mean", "draw, chain 2")
    }
    assert scales == {(-9.0, 9.0)}
    assert panels["posterior sd"].images[0].get_clim()[0] == 0


def test_coverage_tells_above_from_below(panels):
    side = shown(panels["67% in 90% interval"])
    np.testing.assert_array_equal(side, [[0, 1, 0], [0, 0, -1]])


@pytest.mark.parametrize("prob", [0.5, 0.95])
def test_coverage_is_that_of_the_central_interval(prob):
    """Truths drawn as the draws are lie within in ``prob`` of all pixels, to 5 standard errors."""
    rng = np.random.default_rng(1)
    draws, truth = rng.normal(size=(1, 400, 60, 60)), rng.normal(size=(60, 60))
    axes = plot_image_posterior(draws, truth=truth, prob=prob, num_draws=0)
    inside = np.mean(shown(axes[-1]) == 0)
    plt.close("all")
    error = np.sqrt(prob * (1 - prob) * (1 / 3600 + 1 / 400))
    assert abs(inside - prob) < 5 * error


def test_few_draws_cover_as_often_as_the_title_says():
    rng = np.random.default_rng(2)
    draws, truth = rng.normal(size=(1, 20, 60, 60)), rng.normal(size=(60, 60))
    axes = plot_image_posterior(draws, truth=truth, prob=0.9, num_draws=0)
    inside, title = np.mean(shown(axes[-1]) == 0), axes[-1].get_title()
    plt.close("all")
    exact = 1 - 2 / 21
    assert title.endswith(f"in {exact:.0%} interval")
    assert abs(inside - exact) < 5 * np.sqrt(exact * (1 - exact) / 3600)


def test_a_pixel_that_is_the_truth_in_all_draws_is_covered():
    axes = plot_image_posterior(np.zeros((1, 20, 2, 2)), truth=np.zeros((2, 2)), num_draws=0)
    covered = np.all(shown(axes[-1]) == 0)
    plt.close("all")
    assert covered


def test_without_a_truth_there_is_no_coverage_and_axes_may_be_given():
    figure, axes = plt.subplots(1, 3)
    out = plot_image_posterior(DRAWS.reshape(2, 200, 2, 3), num_draws=1, limits=(0, 1), ax=axes)
    assert [ax.get_title() for ax in out] == ["posterior mean", "draw, chain 1", "posterior sd"]
    assert out[0] is axes[0]
    assert axes[0].images[0].get_clim() == (0, 1)
    with pytest.raises(ValueError, match="3 panels, got 1 axes"):
        plot_image_posterior(DRAWS, image_shape=(2, 3), num_draws=1, ax=axes[:1])
    plt.close(figure)


@pytest.mark.parametrize(
    ("draws", "options", "message"),
    [
        (DRAWS, {}, "image_shape=None"),
        (DRAWS, {"image_shape": (2, 4)}, r"\(2, 200, 6\) and image_shape=\(2, 4\)"),
        (DRAWS[0, 0], {"image_shape": (2, 3)}, r"draws\[None\]"),
        (np.full((1, 2, 3, 3), np.nan), {}, "must be finite"),
        (np.zeros((1, 0, 3, 3)), {}, "at least one"),
        (np.zeros((1, 2, 3, 3)), {"truth": np.zeros(8)}, "truth must have 9 finite pixels"),
        (np.zeros((1, 2, 3, 3)), {"prob": 90}, "prob must lie between 0 and 1"),
        (np.zeros((1, 2, 3, 3)), {"num_draws": -1}, "num_draws"),
    ],
)
def test_what_is_no_image_is_refused(draws, options, message):
    with pytest.raises(ValueError, match=message):
        plot_image_posterior(draws, **options)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'numpyro_score\[plotting\]'"):
        plot_image_posterior(DRAWS, image_shape=(2, 3))
