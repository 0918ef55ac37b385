"""What this package relies on in BlackJAX, NumPyro and JAX; a change there fails here, by name."""

from __future__ import annotations

import inspect

import blackjax
import blackjax.sgmcmc
import blackjax.sgmcmc.gradients
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.mcmc import mala
from blackjax.mcmc.diffusions import overdamped_langevin
from jax import random
from numpyro import handlers
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.primitives import Messenger


def test_mala_signatures():
    assert list(inspect.signature(mala.init).parameters) == ["position", "logdensity_fn"]
    kernel = inspect.signature(blackjax.mala.build_kernel()).parameters
    assert list(kernel) == ["rng_key", "state", "logdensity_fn", "step_size"]
    assert mala.MALAState._fields == ("position", "logdensity", "logdensity_grad")
    assert {"acceptance_rate", "is_accepted"} <= set(mala.MALAInfo._fields)


def test_step_size_is_the_epsilon_of_x_plus_eps_score_plus_root_two_eps_noise():
    eps, score = 0.3, 2.0
    step = overdamped_langevin(jax.value_and_grad(lambda x: score * x.sum()))
    state = blackjax.mcmc.diffusions.DiffusionState(jnp.zeros(20_000), 0.0, jnp.full(20_000, score))
    moved = np.asarray(step(random.key(0), state, eps).position)
    error = np.sqrt(2 * eps / moved.size)
    assert abs(moved.mean() - eps * score) < 5 * error
    assert abs(moved.var() - 2 * eps) < 5 * 2 * eps * np.sqrt(2 / moved.size)


def test_mala_rejects_nan():
    logdensity_fn = lambda x: jnp.where(x > 0, jnp.nan, 0.0 * x)  # noqa: E731
    state = mala.MALAState(jnp.zeros(()), jnp.zeros(()), jnp.full((), 100.0))
    state, info = mala.build_kernel()(random.key(0), state, logdensity_fn, 1.0)
    assert not info.is_accepted
    assert info.acceptance_rate == 0
    assert state.position == 0


def test_dual_averaging():
    init, update, final = dual_averaging_adaptation(0.574)
    state = init(0.1)
    assert {"log_step_size", "log_step_size_avg"} <= set(state._fields)
    lower = update(state, 0.0)
    assert lower.log_step_size < update(state, 1.0).log_step_size
    assert np.isfinite(final(lower))


def test_a_ref_carries_a_value_out_of_a_gradient_under_vmap_and_scan():
    def step(x, _):
        ref = jax.new_ref(x)

        def f(v):
            ref[...] = jax.lax.stop_gradient(x + v)
            return jnp.sum((x + v) ** 2)

        _, grad = jax.value_and_grad(f)(jnp.ones_like(x))
        return ref[...], grad

    def run(x):
        return jax.lax.scan(step, x, None, length=3)

    last, grads = jax.jit(jax.vmap(run))(jnp.zeros((2, 1)))
    np.testing.assert_array_equal(last, jnp.full((2, 1), 3.0))
    np.testing.assert_array_equal(grads[0, :, 0], jnp.array([2.0, 4.0, 6.0]))


def test_stochastic_gradient_signatures():
    sgld_kernel = inspect.signature(blackjax.sgmcmc.sgld.build_kernel()).parameters
    shared = ["rng_key", "position", "grad_estimator", "minibatch", "step_size", "temperature"]
    assert list(sgld_kernel) == shared
    sgnht_kernel = inspect.signature(blackjax.sgmcmc.sgnht.build_kernel()).parameters
    assert list(sgnht_kernel) == ["rng_key", "state", *shared[2:]]
    assert blackjax.sgmcmc.sgnht.SGNHTState._fields == ("position", "momentum", "xi")
    integrate = inspect.signature(blackjax.sgmcmc.diffusions.sghmc(1.0, 0.0)).parameters
    assert list(integrate)[:5] == [
        "rng_key",
        "position",
        "momentum",
        "logdensity_grad",
        "step_size",
    ]


def test_control_variates_ask_for_all_data_once_and_work_on_any_pytree():
    asked = []

    def estimate(position, minibatch):
        asked.append(minibatch)
        return (10.0 if minibatch is None else minibatch * position, position)

    controlled = blackjax.sgmcmc.gradients.control_variates(estimate, 2.0, None)
    assert asked == [None]
    assert controlled(5.0, 3.0) == (10.0 + 3.0 * 5.0 - 3.0 * 2.0, 2.0 + 5.0 - 2.0)


def test_sghmc_of_blackjax_keeps_one_minibatch_for_all_steps():
    """Why its integrator is used here, and not its kernel."""
    asked = []

    def estimate(position, minibatch):
        asked.append(minibatch)
        return -position

    kernel = blackjax.sgmcmc.sghmc.build_kernel(1.0)
    kernel(random.key(0), jnp.zeros(2), estimate, "the minibatch", 0.1, 3)
    assert set(asked) == {"the minibatch"}


def test_a_handler_chooses_the_rows_of_a_plate():
    """By the value of its message, and how many by its arguments; the scale follows."""

    class Choose(Messenger):
        def process_message(self, msg):
            if msg["type"] == "plate":
                assert msg["args"] == (5, 2)
                msg["value"], msg["args"] = jnp.array([4, 0, 1]), (5, 3)

    with Choose(), handlers.trace() as trace:
        plate = numpyro.plate("rows", 5, subsample_size=2)
        with plate as rows:
            numpyro.sample("x", dist.Normal(0.0, 1.0), obs=jnp.zeros(3))
    assert rows.tolist() == [4, 0, 1]
    assert trace["x"]["scale"] == 5 / 3


def test_gibbs_marks_its_blocks_by_a_keyword():
    assert GIBBS_SITES_KWARG == "_gibbs_sites"
