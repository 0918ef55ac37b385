"""What this package relies on in BlackJAX, NumPyro and JAX; a change there fails here, by name."""

from __future__ import annotations

import inspect

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.mcmc import mala
from blackjax.mcmc.diffusions import overdamped_langevin
from jax import random
from numpyro.infer.gibbs import GIBBS_SITES_KWARG


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


def test_gibbs_marks_its_blocks_by_a_keyword():
    assert GIBBS_SITES_KWARG == "_gibbs_sites"
