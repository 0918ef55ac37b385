"""``MCMC`` in chunks: NumPyro's draws, compiled once, and nothing lost."""

from __future__ import annotations

import pickle

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import infer as theirs
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer.util import Predictive

from numpyro_score.infer import MALA, MCLMC, MCMC, _upstream
from numpyro_score.infer import mcmc as module
from numpyro_score.infer._draws import Draws, Position
from numpyro_score.infer._progress import RunningRhat
from tests.infer.model import Y, model

OPTIONS = {"num_warmup": 7, "num_samples": 23, "progress_bar": False}
FIELDS = ("potential_energy", "adapt_state.step_size")


# Nothing is tuned, and runs are short, so that rounding stays rounding.
FIXED = {"step_size": 0.3, "adapt_step_size": False, "adapt_mass_matrix": False}


def run(cls, kernel, rng_key=0, *args, init_params=None, extra_fields=FIELDS, **options):
    mcmc = cls(kernel, **OPTIONS | options)
    key = random.key(rng_key) if isinstance(rng_key, int) else rng_key
    mcmc.run(key, *args or (Y,), extra_fields=extra_fields, init_params=init_params)
    return mcmc


def assert_same(ours, numpyros):
    """The same numbers by chain; XLA may round two programs differently."""
    for get in ("get_samples", "get_extra_fields"):
        mine, their = (getattr(m, get)(group_by_chain=True) for m in (ours, numpyros))
        assert set(mine) == set(their)
        for name in their:
            np.testing.assert_allclose(mine[name], their[name], rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (MALA, {}),
        (MALA, {"num_chains": 2, "chain_method": "vectorized", "thinning": 4}),
        (MALA, {"num_chains": 2, "chain_method": "sequential"}),
        (MCLMC, {"num_chains": 2, "chain_method": "vectorized"}),
        (theirs.NUTS, {"num_chains": 2, "chain_method": "vectorized"}),
    ],
)
def test_draws_are_those_of_numpyro(make, options):
    assert_same(*(run(cls, make(model, **FIXED), **options) for cls in (MCMC, theirs.MCMC)))


def test_warmup_then_run_and_what_both_leave_behind():
    chains = {"num_chains": 2, "chain_method": "vectorized"}
    runs = [cls(MALA(model, **FIXED), **OPTIONS, **chains) for cls in (MCMC, theirs.MCMC)]
    for mcmc in runs:
        mcmc.warmup(random.key(0), Y, collect_warmup=True, extra_fields=FIELDS)
    assert_same(*runs)
    assert runs[0].get_samples()["loc"].shape == (14,)
    for mcmc in runs:
        mcmc.run(mcmc.post_warmup_state.rng_key, Y, extra_fields=FIELDS)
    assert_same(*runs)
    for mcmc in runs:
        mcmc.post_warmup_state = mcmc.last_state
        mcmc.run(mcmc.post_warmup_state.rng_key, Y, extra_fields=FIELDS)
    assert_same(*runs)


# -- compiled once -----------------------------------------------------------------------------


def counting_model(traces):
    def model(y):
        traces.append(1)
        loc = numpyro.sample("loc", dist.Normal(0.0, 100.0))
        numpyro.sample("other", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(loc, 0.1).expand([50]).to_event(1), obs=y)

    return model


@pytest.mark.parametrize(("make", "jit_model_args"), [(MALA, False), (theirs.NUTS, True)])
def test_a_second_run_traces_nothing_and_follows_its_own_data(make, jit_model_args):
    traces = []
    kernel = make(counting_model(traces))
    mcmc = MCMC(
        kernel, num_warmup=300, num_samples=200, progress_bar=False, jit_model_args=jit_model_args
    )
    mcmc.run(random.key(0), jnp.full(50, 3.0))
    first = len(traces)
    assert first > 0
    for loc, num_samples in ((-40.0, 200), (12.0, 150)):
        mcmc.num_samples = num_samples
        mcmc._plan_default()
        mcmc.run(random.key(1), jnp.full(50, loc))
        assert abs(mcmc.get_samples()["loc"].mean() - loc) < 0.1
        assert mcmc.get_samples()["loc"].shape == (num_samples,)
    assert len(traces) == first


def test_a_model_that_looks_into_its_data_is_right_as_well():
    def looking_model(y):
        num_levels = int(np.max(y)) + 1
        levels = numpyro.sample("levels", dist.Normal(0.0, 10.0).expand([num_levels]).to_event(1))
        numpyro.sample("obs", dist.Normal(levels.sum(), 0.1), obs=float(np.sum(y)))

    mcmc = MCMC(MALA(looking_model), num_warmup=300, num_samples=300, progress_bar=False)
    for y in (np.array([2, 1]), np.array([3, 9])):
        mcmc.run(random.key(0), y)
        draws = mcmc.get_samples()["levels"]
        assert draws.shape == (300, y.max() + 1)
        assert abs(draws.sum(-1).mean() - y.sum()) < 0.2


def test_another_model_of_the_same_shapes_is_another_program():
    kernels = [MALA(potential_fn=lambda z, loc=loc: 50 * (z - loc) ** 2) for loc in (0.0, 5.0)]
    for kernel, loc in zip(kernels, (0.0, 5.0), strict=True):
        mcmc = MCMC(kernel, num_warmup=200, num_samples=200, progress_bar=False)
        mcmc.run(random.key(0), init_params=jnp.zeros(()))
        assert abs(mcmc.get_samples().mean() - loc) < 0.1


# -- post-processing ---------------------------------------------------------------------------


def test_only_kept_draws_are_postprocessed():
    seen = []

    def postprocess(z):
        jax.debug.callback(lambda x: seen.append(float(x)), z["loc"])
        return z

    mcmc = run(MCMC, MALA(model), thinning=4, num_samples=40, postprocess_fn=postprocess)
    kept = np.asarray(mcmc.get_samples()["loc"])
    jax.effects_barrier()
    # Blocks have a fixed length, so that empty rows are seen too, and no dropped draw.
    assert set(np.float32(seen)) - {0.0} <= set(kept)
    assert len(kept) == 10


def test_a_chunk_has_room_for_what_draws_become():
    """Not for what is sampled alone: a deterministic site can be larger by far."""
    wide = lambda z: {"z": z, "wide": jnp.full(50_000, z)}  # noqa: E731
    kernel = MALA(potential_fn=lambda z: 0.5 * z**2)
    mcmc = run(MCMC, kernel, init_params=jnp.zeros(()), extra_fields=(), postprocess_fn=wide)
    (programs,) = mcmc._programs._programs.values()
    assert programs.rows_per_chunk(mcmc.last_state) <= 2**26 / (4 * 50_000)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="memory of its own")
def test_draws_are_held_once():
    draws = Draws(6, [])
    for end in (4, 6):
        draws.add(
            {"z": np.full((2, end - draws.position.kept, 3), end, np.float32)},
            Position(kept=end),
            [],
        )
    room = draws._arrays["z"].ctypes.data
    taken = draws.take({})["z"]
    assert taken.unsafe_buffer_pointer() == room
    np.testing.assert_array_equal(taken[0, :, 0], [4, 4, 4, 4, 6, 6])


# -- interrupts, the bar -----------------------------------------------------------------------


@pytest.mark.parametrize("on_device", [False, True])
def test_an_interrupt_keeps_the_draws_so_far(monkeypatch, on_device):
    monkeypatch.setattr(module, "on_accelerator", lambda state: on_device)
    whole = run(MCMC, MALA(model), chunk_size=5)
    mcmc = MCMC(MALA(model), **OPTIONS, chunk_size=5)
    chunks = []

    class Stop:
        def update(self, *args):
            chunks.append(1)
            if len(chunks) == 4:
                raise KeyboardInterrupt

    original = module.Bar.update
    module.Bar.update = Stop.update.__get__(Stop())
    try:
        with pytest.warns(UserWarning, match="10 of 23 draws per chain are kept"):
            mcmc.run(random.key(0), Y, extra_fields=FIELDS)
    finally:
        module.Bar.update = original
    np.testing.assert_allclose(
        mcmc.get_samples()["loc"], whole.get_samples()["loc"][:10], rtol=1e-3, atol=1e-4
    )


@pytest.fixture
def _at_a_terminal(monkeypatch):
    """NumPyro's constructor turns the bar off where these are set."""
    for name in ("CI", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_at_a_terminal")
@pytest.mark.parametrize("on_device", [False, True])
def test_the_bar_says_what_is_going_on(capsys, monkeypatch, on_device):
    monkeypatch.setattr(module, "on_accelerator", lambda state: on_device)
    run(MCMC, MALA(model), progress_bar=True, num_chains=2, chain_method="vectorized")
    bar = capsys.readouterr().err
    for word in ("warmup", "sample", "30/30", "step size", "acc. prob", "R-hat"):
        assert word in bar


@pytest.mark.usefixtures("_at_a_terminal")
def test_the_bar_counts_what_went_wrong(capsys):
    wall = lambda z: jnp.where(z[0] > 0, 0.5 * jnp.sum(z**2), jnp.nan)  # noqa: E731
    kernel = MALA(potential_fn=wall, step_size=5.0, adapt_step_size=False)
    run(MCMC, kernel, init_params=jnp.ones(2), progress_bar=True, extra_fields=())
    assert "divergent" in capsys.readouterr().err


def test_running_rhat_is_that_of_all_draws():
    draws = np.random.default_rng(0).normal(size=(4, 400)) + np.array([[0.0], [0.5], [0.0], [0.0]])
    running = RunningRhat()
    for block in np.array_split(draws, 8, axis=1):
        running.add({"x": block})
    exact = split_gelman_rubin(draws)
    assert abs(running.value() - exact) < 2e-3
    assert exact > 1.01


def test_running_rhat_takes_blocks_of_any_length():
    """Wide draws are looked at in part: the same part of a last block that is short."""
    draws = np.random.default_rng(0).normal(size=(512, 519, 31))
    running = RunningRhat()
    for block in np.split(draws, range(64, 519, 64), axis=1):
        running.add({"x": block})
    assert abs(running.value() - split_gelman_rubin(draws).max()) < 0.02


# -- whatever takes an MCMC --------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished():
    return run(MCMC, MALA(model), num_chains=2, chain_method="vectorized")


def test_everything_that_takes_numpyros_mcmc_takes_it(finished, capsys):
    assert isinstance(finished, theirs.MCMC)
    posterior = az.from_numpyro(finished)["posterior"]
    assert posterior["x"].shape == (2, 23, 2)
    finished.print_summary()
    assert "loc" in capsys.readouterr().out
    draws = Predictive(model, finished.get_samples())(random.key(1), None)
    assert draws["y"].shape == (46, 3)
    finished.transfer_states_to_host()
    assert isinstance(finished.get_samples()["x"], np.ndarray)


def test_it_is_pickled_and_goes_on(finished):
    thawed = pickle.loads(pickle.dumps(finished))
    for mcmc in (finished, thawed):
        mcmc.post_warmup_state = mcmc.last_state
        mcmc.run(random.key(5), Y)
    np.testing.assert_array_equal(thawed.get_samples()["x"], finished.get_samples()["x"])


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_other_chain_methods_run_numpyros_own_loop():
    with pytest.warns(UserWarning, match="runs NumPyro's own loop"):
        mcmc = run(MCMC, MALA(model), num_chains=2, chain_method=jax.vmap)
    assert mcmc.get_samples()["x"].shape == (46, 2)


@pytest.mark.parametrize(("name", "value"), [("chunk_size", 0), ("progress_rate", 1.5)])
def test_arguments_out_of_range(name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        MCMC(MALA(model), **OPTIONS, **{name: value})


def test_starts_of_another_number_of_chains():
    start = {"loc": jnp.zeros(3), "scale": jnp.zeros(3), "x": jnp.zeros((3, 2))}
    with pytest.raises(ValueError, match="expected 2, got"):
        run(MCMC, MALA(model), init_params=start, num_chains=2, chain_method="vectorized")


def test_numpyro_still_has_the_private_names_that_we_use():
    mcmc = run(theirs.MCMC, MALA(model, **FIXED))
    assert [name for name in _upstream.PRIVATE_NAMES if not hasattr(mcmc, name)] == []
