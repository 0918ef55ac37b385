from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.sde import (
    EDM,
    VE,
    VP,
    CosineVP,
    From,
    SubVP,
    geometric_ladder,
    largest_distance,
    time_of,
)


@pytest.mark.parametrize("sde", [VE(0.01, 50.0), EDM(), VP(), CosineVP(), SubVP(), From(VP(), 0.2)])
def test_time_of_is_the_inverse_of_the_noise(sde):
    t = jnp.linspace(sde.t_min, sde.t_max, 9)
    np.testing.assert_allclose(time_of(sde, sde.noise_scale(t)), t, rtol=1e-4, atol=1e-5)
    first, last = time_of(sde, jnp.array([1e-9, 1e9]))
    assert first == jnp.asarray(sde.t_min, float)
    np.testing.assert_allclose(last, sde.t_max, rtol=1e-6)


def test_time_of_under_jit_and_vmap():
    levels = jnp.array([0.1, 1.0, 10.0])
    times = jax.jit(jax.vmap(lambda s: time_of(VE(0.1, 10.0), s)))(levels)
    np.testing.assert_allclose(times, [0.0, 0.5, 1.0], atol=1e-6)


def test_time_of_refuses_what_is_no_diffusion():
    with pytest.raises(TypeError, match="must be a diffusion"):
        time_of(lambda t: t, 1.0)


def test_largest_distance_of_many_rows_looks_at_some():
    rows = np.random.default_rng(0).uniform(size=(10_000, 4, 5))
    some = rows[::5].reshape(-1, 20)
    expected = max(np.linalg.norm(some - row, axis=1).max() for row in some)
    np.testing.assert_allclose(largest_distance(rows), expected)


def test_largest_distance_of_bytes_does_not_wrap_around():
    assert largest_distance(np.array([[200, 0], [0, 0]], np.uint8)) == 200.0


@pytest.mark.parametrize(("size", "overlap"), [(64, 0.5), (3072, 0.5), (64, 0.9)])
def test_ladder_solves_the_equation_and_has_one_ratio(size, overlap):
    levels = geometric_ladder(50.0, 0.01, size, overlap=overlap)
    assert levels[0] == 50.0
    assert levels[-1] == pytest.approx(0.01)
    ratios = np.array(levels[:-1]) / np.array(levels[1:])
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
    cdf = NormalDist().cdf

    def shared(gamma):
        centre = np.sqrt(2 * size) * (gamma - 1)
        return cdf(centre + 3 * gamma) - cdf(centre - 3 * gamma)

    # As few levels as keep the overlap: with one less they would not.
    one_less = (50.0 / 0.01) ** (1 / (len(levels) - 2))
    assert shared(ratios[0]) >= overlap
    assert shared(one_less) < overlap


def test_in_two_dimensions_neighbours_differ_by_a_factor_of_ten_at_most():
    assert geometric_ladder(100.0, 1.0, 2) == pytest.approx((100.0, 10.0, 1.0))


def test_ladder_of_the_paper():
    # Song & Ermon (2020), section 3.2: 232 levels for CIFAR-10, at an overlap of "about" 0.5.
    assert abs(len(geometric_ladder(50.0, 0.01, 3 * 32 * 32)) - 232) < 23


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 2.0, 3), "smallest must be below largest"),
        ((1.0, 0.0, 3), "smallest"),
        ((2.0, 1.0, 0), "event_size"),
    ],
)
def test_ladders_that_are_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        geometric_ladder(*arguments)


def test_bad_overlap_and_bad_data():
    with pytest.raises(ValueError, match="overlap"):
        geometric_ladder(2.0, 1.0, 3, overlap=1.0)
    with pytest.raises(ValueError, match=r"\(n, \*event_shape\)"):
        largest_distance(np.ones((1, 2)))
    with pytest.raises(ValueError, match="finite"):
        largest_distance(np.array([[np.nan], [1.0]]))
