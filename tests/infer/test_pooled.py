"""Chains that share one step size and one metric."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from numpyro.infer import MCMC, Gibbs

from numpyro_score.infer import HMC, MALA
from numpyro_score.infer._metric import finish_metric, init_metric, restart_metric, update_metric
from numpyro_score.infer._whitening import DenseWhitening
from tests.infer.model import Y, make_mcmc, model
from tests.infer.test_metric import gaussian, roundness

NUM_CHAINS = 16


def test_one_step_size_and_one_metric_for_all_chains():
    mcmc = make_mcmc("mala_pooled", num_chains=4)
    mcmc.run(random.key(0), Y, extra_fields=("adapt_state.step_size",))
    adapt_state = mcmc.last_state.adapt_state
    assert adapt_state.inverse_mass_matrix.shape == (4, 4)
    assert adapt_state.step_size.shape == (4,)
    step_sizes = mcmc.get_extra_fields(group_by_chain=True)["adapt_state.step_size"]
    assert step_sizes.shape == (4, 40)
    assert np.ptp(step_sizes) == 0


def acceptance(adaptation, num_seeds):
    """Acceptance after 500 warm-up steps, its mean over 16 chains and 1,000 steps, by seed."""
    root = jnp.asarray(gaussian(100.0, size=10)[0], float)
    kernel = MALA(
        potential_fn=lambda z: 0.5 * jnp.sum((root @ z) ** 2) + jnp.sum(jnp.exp(-z)),
        adaptation=adaptation,
        dense_mass=True,
    )

    def run(rng_key):
        start_key, key = random.split(rng_key)
        start = random.uniform(start_key, (NUM_CHAINS, 10), minval=-2.0, maxval=2.0)
        state = kernel.init(random.split(key, NUM_CHAINS), 500, start, (), {})

        def step(state, _):
            return kernel.sample(state, (), {}), None

        state, _ = jax.lax.scan(step, state, None, length=1500)
        return state.mean_accept_prob.mean()

    return np.asarray(jax.jit(jax.vmap(run))(random.split(random.key(0), num_seeds)))


def test_acceptance_is_within_three_hundredths_of_the_target():
    errors = np.abs(acceptance("pooled", 20) - 0.574)
    assert np.median(errors) <= 0.03, errors


def quartic(z):
    return 0.25 * jnp.sum(z**4)


class LeavesBehind(HMC):
    """Goes by the mean acceptance of all chains from the start."""

    wait_for_all = False


@pytest.mark.parametrize(("cls", "arrives"), [(HMC, True), (LeavesBehind, False)])
def test_a_pool_waits_for_a_chain_that_starts_far_out(cls, arrives):
    start = jnp.ones((NUM_CHAINS, 5)).at[0].set(200.0)
    options = {"step_size": 1.0, "adapt_mass_matrix": False, "adaptation": "pooled"}
    kernel = cls(potential_fn=quartic, num_steps=4, **options)
    state = kernel.init(random.split(random.key(0), NUM_CHAINS), 500, start, (), {})

    def step(_, state):
        return kernel.sample(state, (), {})

    state = jax.jit(lambda state: jax.lax.fori_loop(0, 500, step, state))(state)
    assert (jnp.abs(state.z).max() < 4.0) == arrives
    assert state.mean_accept_prob[1:].mean() > 0.5


# -- the metric of a group ---------------------------------------------------------------------


def test_chains_that_hardly_moved_still_span_the_space():
    """Windows of two steps of 40 chains: no chain knows 20 dimensions, all of them together do."""
    size, num_chains = 20, 40
    root, covariance = gaussian(1e3, size)
    root = jnp.asarray(root, float)
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(num_chains, size)), float)
    whitening = DenseWhitening(jnp.eye(size))
    state = init_metric(z + 5.0, dense=True)  # from any common point
    for _ in range(4):
        for _ in range(2):
            step = jnp.asarray(0.1 * rng.normal(size=z.shape), float)
            z = z + step @ whitening.scale_tril.T
            score = whitening.whiten_gradient(-(z @ root.T) @ root)
            state = update_metric(state, step, score, jnp.ones(num_chains, bool))
        factor = finish_metric(state, dense=True)
        whitening, state = whitening.compose(factor), restart_metric(state, factor)
    np.testing.assert_allclose(roundness(whitening.scale_tril, covariance), 1.0, atol=0.05)


@pytest.mark.parametrize("factor", [jnp.array([2.0, 0.5]), jnp.array([[2.0, 0.0], [1.0, 0.5]])])
def test_the_next_window_knows_where_the_chains_are(factor):
    """Displacements are those of z in the coordinates of the new metric."""
    z = jnp.array([[1.0, 2.0], [3.0, -1.0], [0.0, 0.0]])
    state = restart_metric(init_metric(z, factor.ndim == 2), factor)
    back = state.displacement @ factor.T if factor.ndim == 2 else state.displacement * factor
    np.testing.assert_allclose(back, z - z.mean(0), atol=1e-6)


# -- where it cannot be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_chains", "chain_method"), [(1, "vectorized"), (2, "sequential"), (2, jax.vmap)]
)
def test_one_chain_is_refused_before_anything_runs(num_chains, chain_method):
    mcmc = make_mcmc("mala_pooled", num_chains=num_chains, chain_method=chain_method)
    with pytest.raises(ValueError, match=r'adaptation="pooled" tunes several chains'):
        mcmc.run(random.key(0), Y)


def test_unknown_adaptation():
    with pytest.raises(ValueError, match='must be "per-chain" or "pooled", got \'shared\''):
        MALA(model, adaptation="shared")


def test_refused_in_a_block_of_gibbs_which_runs_one_chain_at_a_time():
    kernel = Gibbs([(MALA(model, adaptation="pooled"), None)])
    options = {"num_chains": 2, "chain_method": "sequential", "progress_bar": False}
    with pytest.raises(ValueError, match=r'adaptation="pooled" tunes several chains'):
        MCMC(kernel, num_warmup=1, num_samples=1, **options).run(random.key(0), Y)
