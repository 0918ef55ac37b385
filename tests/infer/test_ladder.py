"""Levels, swaps between them, and the journeys that come of it."""

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score.infer._ladder import even_out
from numpyro_score.infer._levels import Level
from numpyro_score.infer._swaps import begin, propose, travel

# -- swaps -------------------------------------------------------------------------------------


def test_swaps_are_transpositions_of_neighbours():
    def log_ratio(lower, upper, here, there):
        return jnp.where(here["z"] == 2.0, -jnp.inf, 0.0)

    z = {"z": jnp.arange(5.0)}
    even = propose(jax.random.key(0), z, jnp.array(0), log_ratio, 5)
    odd = propose(jax.random.key(0), z, jnp.array(1), log_ratio, 5)
    assert even.source.tolist() == [1, 0, 2, 3, 4]
    assert even.proposed.tolist() == [True, False, True, False]
    assert even.accept_prob.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert odd.source.tolist() == [0, 2, 1, 4, 3]
    assert odd.proposed.tolist() == [False, True, False, True]


def test_a_ratio_that_is_no_number_refuses():
    nan = lambda *_: jnp.array(jnp.nan)  # noqa: E731
    swaps = propose(jax.random.key(0), {"z": jnp.arange(2.0)}, jnp.array(0), nan, 2)
    assert swaps.source.tolist() == [0, 1]
    assert swaps.accept_prob.tolist() == [0.0]


def test_round_trips_are_counted_from_the_posterior_to_the_top_and_back():
    journeys = begin(3)
    up, down = jnp.array([1, 0, 2]), jnp.array([0, 2, 1])
    trips = []
    for source in [up, down, down, up, up, down, down, up]:
        journeys = travel(journeys, source)
        trips.append(int(journeys.round_trips))
    assert trips == [0, 0, 0, 1, 1, 1, 1, 2]


# -- the ladder --------------------------------------------------------------------------------


def test_levels_move_to_where_swaps_are_refused():
    ladder = Level(jnp.array([0.1, 1.0, 10.0, 100.0]), jnp.array([1.0, 1.0, 0.5, 0.1]))
    new = even_out(ladder, jnp.array([0.9, 0.5, 0.9]))
    assert new.noise_scale[0] == ladder.noise_scale[0]
    assert new.noise_scale[-1] == ladder.noise_scale[-1]
    # Barriers 0.1, 0.5, 0.1: a third of 0.7 is 0.1 + 4/15 of the middle one.
    np.testing.assert_allclose(new.noise_scale[1], 10 ** (4 / 15), rtol=1e-5)
    np.testing.assert_allclose(new.inverse_temperature[1], 0.5 ** (4 / 15), rtol=1e-5)
    same = even_out(ladder, jnp.full(3, 0.4))
    np.testing.assert_allclose(same.noise_scale, ladder.noise_scale, rtol=1e-5)
