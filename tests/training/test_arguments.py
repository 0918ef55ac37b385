"""Bad arguments are refused before any step, with words that help."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from numpyro_score.networks import EnergyMLP
from numpyro_score.objectives import DenoisingScoreMatching
from numpyro_score.training import _run, fit
from numpyro_score.training._arguments import pick_chunk_size
from numpyro_score.training._data import Rows
from numpyro_score.training._sources import DeviceRows

DATA = np.random.default_rng(0).normal(size=(50, 2))
OBJECTIVE = DenoisingScoreMatching(0.5)


@pytest.fixture(autouse=True)
def no_step(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("a step was taken")

    monkeypatch.setattr(_run, "run_chunk", refuse)


def run(data=DATA, network=None, objective=OBJECTIVE, rng_key=None, **kwargs):
    network = EnergyMLP(2, width=4, key=jax.random.key(0)) if network is None else network
    rng_key = jax.random.key(0) if rng_key is None else rng_key
    settings = {"num_steps": 10, "batch_size": 8, "progress_bar": False} | kwargs
    return fit(rng_key, network, data, objective, **settings)


def with_nan():
    data = DATA.copy()
    data[3, 1] = np.nan
    data[7] = np.inf
    return data


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (with_nan(), ValueError, "3 of 100 entries in 2 of 50 rows .* row 3, column 1; drop"),
        (DATA[:, 0], ValueError, r"reshape\(-1, 1\)"),
        (np.zeros(()), ValueError, "at least one event axis"),
        (DATA[:1], ValueError, "at least 2 rows, got the shape"),
        (DATA[:0], ValueError, "must not be empty"),
        (DATA.astype(int), TypeError, r"floating-point.*int64.*astype\(float\)\. Counts"),
        (DATA > 0, TypeError, "floating-point.*bool"),
        (DATA.astype(complex), TypeError, "floating-point.*complex"),
        (DATA.astype(object), TypeError, "floating-point.*object"),
        (DATA.tolist(), TypeError, "NumPy or JAX array, got list"),
        (None, TypeError, "NumPy or JAX array, got NoneType"),
        (DATA[:, :1], ValueError, r"data must have the shape \(n, 2\)"),
        (np.ones((50, 2)) * DATA[:, :1], None, ""),
        (DATA[:7], ValueError, "batch_size must be at most .* 7 rows less 1 .* leave 6"),
        (DATA[:4], ValueError, "validation_fraction=0.1 of 4 rows is no row"),
    ],
)
def test_bad_data(data, error, words):
    if error is None:
        with pytest.raises(pytest.fail.Exception, match="a step was taken"):
            run(data)
    else:
        with pytest.raises(error, match=words):
            run(data)


@pytest.mark.skipif(jax.config.jax_enable_x64, reason="float64 holds these numbers")
def test_numbers_beyond_float32():
    with pytest.raises(ValueError, match="data as float32 must be finite"):
        run(DATA * 1e300)


def test_first_bad_entry_of_an_image():
    data = np.zeros((10, 2, 3))
    data[4, 1, 2] = np.nan
    with pytest.raises(ValueError, match=r"row 4, column \(1, 2\)"):
        run(data)


@pytest.mark.parametrize(
    ("condition", "error", "words"),
    [
        (DATA[:40], ValueError, "data has 50 rows, condition 40"),
        (np.full((50, 1), np.nan), ValueError, "condition must be finite"),
        (np.zeros((50, 1), int), TypeError, r"condition must hold .*astype\(float\)\.$"),
        (DATA, ValueError, "takes no condition"),
    ],
)
def test_bad_conditions(condition, error, words):
    with pytest.raises(error, match=words):
        run(condition=condition)


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ({"num_steps": 0}, ValueError, "num_steps must be an integer of at least 1"),
        ({"num_steps": 10.0}, ValueError, "num_steps must be an integer"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer"),
        ({"batch_size": 46}, ValueError, "leave 45, got batch_size=46"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be an integer"),
        ({"ema_decay": 1.0}, ValueError, "ema_decay must be at least 0 and below 1"),
        ({"ema_decay": np.nan}, ValueError, "ema_decay must be at least 0 and below 1"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction must be at least 0"),
        ({"validation_fraction": -0.1}, ValueError, "validation_fraction must be at least 0"),
        ({"patience": 0}, ValueError, "patience must be an integer"),
        ({"patience": 1, "validation_fraction": 0.0}, ValueError, "patience needs a validation"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate must be a finite number above 0"),
        ({"optimizer": optax.sgd(1.0), "learning_rate": 1.0}, ValueError, "not both"),
        ({"optimizer": "adam"}, TypeError, "optax.GradientTransformation"),
        ({"rng_key": 0}, TypeError, "one random key such as jax.random.key"),
        ({"rng_key": np.zeros(3)}, TypeError, "float64 of shape"),
        ({"network": 3}, TypeError, "a network must be"),
        ({"network": lambda x: jnp.sum(x**2)}, ValueError, r"give \(apply_fn, params\)"),
        ({"objective": "dsm"}, TypeError, "objective must be a function"),
        ({"objective": lambda n, b, k: jnp.sum(b)}, ValueError, r"of shape \(8,\).*take the mean"),
        ({"objective": lambda n, b, k: jnp.ones(8, int)}, ValueError, "floating-point"),
        ({"objective": lambda n, b, k: None}, ValueError, "one loss per example"),
    ],
)
def test_bad_settings(setting, error, words):
    with pytest.raises(error, match=words):
        run(**setting)


def test_a_batch_of_keys_is_refused():
    with pytest.raises(TypeError, match="one random key"):
        run(rng_key=jax.random.split(jax.random.key(0)))


@pytest.mark.parametrize(
    ("num_steps", "num_validation_rows", "chunk_size"),
    [(1000, 0, 20), (1000, 1000, 33), (1000, 9000, 100), (100_000, 1000, 500), (5, 1000, 5)],
)
def test_validation_takes_a_small_part_of_the_time(num_steps, num_validation_rows, chunk_size):
    source = DeviceRows(Rows(jnp.zeros((2000, 2)), None), 512)
    assert pick_chunk_size(None, num_steps, source, num_validation_rows) == chunk_size
    assert pick_chunk_size(7, num_steps, source, num_validation_rows) == min(7, num_steps)
