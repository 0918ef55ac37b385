"""ChEES: a trajectory length that many chains tune together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from blackjax.adaptation.chees_adaptation import base
from jax import random
from numpyro.infer import MCMC

from numpyro_score.infer import HMC, ChEES
from numpyro_score.infer._trajectory_length import (
    chees_slope,
    init_length,
    jitter,
    restart_average,
    update_length,
)
from tests.infer.model import Y, make_mcmc
from tests.infer.test_cost import equations

NUM_CHAINS, SIZE = 2000, 5
# The largest length that maximizes E[sin²(h L)] for h uniform in (0, 1): tan(2 L) = 2 L.
BEST_FOR_A_ROUND_GAUSSIAN = 2.2467


def swing(angle, seed=0):
    """Return start, end and velocity there of exact trajectories under a round Gaussian."""
    rng = np.random.default_rng(seed)
    position, velocity = jnp.asarray(rng.normal(size=(2, NUM_CHAINS, SIZE)), float)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return position, position * cos + velocity * sin, velocity * cos - position * sin


def criterion(start, end, weight):
    """The change in the estimator of the expected square, as the paper has it."""
    centred = end - (weight[:, None] * end).sum(0) / weight.sum()
    square = (centred**2).sum(1) - ((start - start.mean(0)) ** 2).sum(1)
    return (weight * square**2).sum() / (4 * weight.sum())


@pytest.mark.parametrize("angle", [0.5, 1.5, 3.0])
def test_the_slope_is_the_derivative_of_the_criterion(angle):
    weight = jnp.asarray(np.random.default_rng(1).uniform(size=NUM_CHAINS), float)
    exact = jax.grad(lambda angle: criterion(*swing(angle)[:2], weight))(angle)
    # That the mean of the ends moves, too, counts for one in NUM_CHAINS.
    np.testing.assert_allclose(chees_slope(*swing(angle), weight), exact, rtol=0.01)


def test_the_slope_is_that_of_blackjax():
    """Through its update, by plain gradient descent, from a length at which nothing is clipped."""
    start, end, velocity = (rows[:50] for rows in swing(1.0))
    weight = jnp.linspace(0.1, 1.0, 50)
    rate, length = 1e-4, 1.3
    init, update = base(lambda _: 0.5, lambda i: i + 1, optax.sgd(rate), 0.651, 0.5, 1000)
    state = init(jnp.int32(0), 0.01)._replace(trajectory_length=length)
    quiet = jnp.zeros(50, bool)
    # Momenta as its kernel reports them, turned round; the first update has all of the weight.
    new = update(state, end, -velocity, start, weight, quiet, jnp.ones(SIZE))
    slope = (new.log_trajectory_length_moving_average - jnp.log(length)) / rate
    expected = 0.5 * length * chees_slope(start, end, velocity, weight)
    np.testing.assert_allclose(slope, expected, rtol=0.02)


def test_a_trajectory_that_went_to_infinity_does_not_count():
    start, end, velocity = swing(1.0)
    weight = jnp.ones(NUM_CHAINS).at[3].set(0.0)
    lost = end.at[3].set(jnp.inf), velocity.at[3].set(jnp.nan)
    assert chees_slope(start, *lost, weight) == chees_slope(start, end, velocity, weight)


def test_steps_that_no_chain_survived_change_nothing():
    state = init_length(2.0)
    lost = jnp.full((4, SIZE), jnp.nan)
    new = update_length(state, jnp.float32(0.5), jnp.zeros((4, SIZE)), lost, lost, jnp.zeros(4))
    np.testing.assert_allclose(new.length, 2.0, rtol=1e-6)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new))


def test_an_average_that_begins_again_begins_where_the_last_one_ended():
    state = init_length(2.0)
    for i in range(20):
        state = update_length(state, jitter(jnp.int32(i)), *swing(1.0), jnp.ones(NUM_CHAINS))
    again = restart_average(state)
    assert again.length == state.length != 2.0
    assert again.num_updates == 0


def test_jitter_fills_the_interval():
    values = np.sort(jax.vmap(jitter)(jnp.arange(1024)))
    np.testing.assert_allclose(np.diff(values, prepend=0.0), 1 / 1024, atol=1 / 1024)
    assert values[-1] < 1
    assert jitter(jnp.int32(1024 + 7)) == jitter(jnp.int32(7))


def tuned(potential_fn, size, cls=ChEES, **options):
    """Return the state of 64 chains after 600 warm-up steps."""
    start = random.normal(random.key(1), (64, size))
    kernel = cls(potential_fn=potential_fn, **options)
    mcmc = MCMC(
        kernel,
        num_warmup=600,
        num_samples=1,
        num_chains=64,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.warmup(random.key(0), init_params=start)
    return mcmc.post_warmup_state


def round_gaussian(z):
    return 0.5 * jnp.sum(z**2)


FIXED = {"step_size": 0.1, "adapt_step_size": False, "adapt_mass_matrix": False}


@pytest.mark.parametrize("start", [0.3, 3.0])
def test_the_length_that_is_found_is_the_best(start):
    """Small steps, because a trajectory ends at the next whole step."""
    state = tuned(round_gaussian, 10, trajectory_length=start, **FIXED)
    length = state.adapt_state.length_state.length
    assert length == pytest.approx(BEST_FOR_A_ROUND_GAUSSIAN, rel=0.1)


class Uphill(ChEES):
    """Takes the momentum as BlackJAX reports it, turned round."""

    def _transition(self, *args):
        transition = super()._transition(*args)
        end = transition.seen
        return transition._replace(seen=end._replace(velocity=-end.velocity))


def test_a_momentum_turned_round_is_seen():
    state = tuned(round_gaussian, 10, cls=Uphill, trajectory_length=1.0, **FIXED)
    length = state.adapt_state.length_state.length
    assert length != pytest.approx(BEST_FOR_A_ROUND_GAUSSIAN, rel=0.1)


def test_longer_where_the_metric_leaves_long_directions():
    long = jnp.ones(10) / jnp.sqrt(10.0)  # of standard deviation 5, which no diagonal sees

    def potential_fn(z):
        return 0.5 * (jnp.sum(z**2) - (1 - 1 / 25) * (long @ z) ** 2)

    diagonal, dense = (tuned(potential_fn, 10, dense_mass=d).adapt_state for d in (False, True))
    assert diagonal.length_state.length > 1.5 * dense.length_state.length


def test_a_length_may_be_kept():
    state = tuned(round_gaussian, 2, trajectory_length=1.1, adapt_trajectory_length=False)
    np.testing.assert_allclose(state.adapt_state.length_state.length, 1.1, rtol=1e-6)


def test_no_chain_waits_for_another():
    mcmc = make_mcmc("chees", num_chains=4)
    mcmc.run(random.key(0), Y, extra_fields=("num_steps",))
    num_steps = mcmc.get_extra_fields(group_by_chain=True)["num_steps"]
    assert np.ptp(num_steps, axis=0).max() == 0
    assert np.ptp(num_steps) > 0  # jittered


@pytest.mark.parametrize(("options", "waits"), [({}, True), ({"adaptation": "pooled"}, False)])
def test_a_pool_shares_the_end_of_its_trajectories(options, waits):
    """Chains that end together need no choice, at each leapfrog step, of which have ended."""
    kernel = HMC(potential_fn=round_gaussian, **options)
    state = kernel.init(random.split(random.key(0), 3), 10, jnp.ones((3, 2)), (), {})
    step = jax.make_jaxpr(lambda state: kernel.sample(state, (), {}))(state)
    loops = [e for e in equations(step) if e.primitive.name == "while"]
    answers = {loop.params["cond_jaxpr"].out_avals[0].shape for loop in loops}
    assert answers == ({(3,)} if waits else {()})


@pytest.mark.parametrize(
    ("options", "match"),
    [({"trajectory_length": 0.0}, "trajectory_length"), ({"step_size": -1.0}, "step_size")],
)
def test_refused(options, match):
    with pytest.raises(ValueError, match=match):
        ChEES(potential_fn=round_gaussian, **options)


def test_one_chain_is_refused_without_an_option_that_it_has_not():
    kernel = ChEES(potential_fn=round_gaussian)
    with pytest.raises(ValueError, match=r"^ChEES tunes several chains .* or more chains\.$"):
        kernel.init(random.key(0), 10, jnp.ones(2), (), {})
