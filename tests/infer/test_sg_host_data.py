"""Data that stay on the host give the draws of data on the device."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import infer as theirs

from numpyro_score.infer import MCMC, BatchStream, fetch_rows
from tests.infer.minibatch_model import BATCH, NUM_ROWS, Y, make_mcmc

HOST = np.asarray(Y, np.float64)


def model(source):
    """Rows of an array on the device, or from the host."""
    loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
    with numpyro.plate("rows", NUM_ROWS, subsample_size=BATCH) as rows:
        obs = fetch_rows(source, rows) if callable(source) else source[rows]
        numpyro.sample("y", dist.Normal(loc, 1.0), obs=obs)


def draws(source, cls=MCMC, **options):
    mcmc = make_mcmc("sgld", model=model, cls=cls, **options)
    mcmc.run(random.key(0), source)
    return mcmc.get_samples(group_by_chain=True)["loc"]


def test_rows_from_the_host_give_the_draws_of_rows_on_the_device():
    """Under NumPyro's MCMC those, and these under ours."""
    asked = []

    def read(rows):
        asked.append(rows)
        return HOST[rows]

    options = {"num_chains": 2, "kernel": {"control_variate": {"loc": 2.0}}}
    from_host, on_device = draws(read, theirs.MCMC, **options), draws(Y, MCMC, **options)
    np.testing.assert_allclose(from_host, on_device, rtol=1e-4, atol=1e-5)
    assert max(len(rows) for rows in asked) == BATCH, "never more than a minibatch at a time"


def batches():
    rng = np.random.default_rng(0)
    while True:
        yield HOST[rng.choice(NUM_ROWS, BATCH, replace=False)]


def test_an_iterator_of_minibatches():
    sampled = draws(BatchStream(batches()), num_chains=2, num_warmup=200, num_samples=400)
    assert abs(sampled.mean() - HOST.mean()) < 0.3
    assert not np.array_equal(*sampled), "each chain has its own"


@pytest.mark.parametrize(
    ("name", "per_step", "cls", "num_chains"),
    [("sgld", 1, theirs.MCMC, 1), ("sghmc", 4, MCMC, 2)],
)
def test_a_run_takes_as_many_batches_as_the_docstring_says(name, per_step, cls, num_chains):
    taken = []
    stream = BatchStream(taken.append(1) or batch for batch in batches())
    mcmc = make_mcmc(
        name, model=model, cls=cls, num_chains=num_chains, num_warmup=20, num_samples=21
    )
    mcmc.run(random.key(0), stream)
    jax.block_until_ready(mcmc.last_state)
    # Twenty steps of warm-up are one begun group, 21 are two.
    steps = num_chains * ((20 + 21) * per_step + 1 + 2)
    assert steps < len(taken) <= steps + 4 * num_chains


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ([], "there is no batch 11"),
        ([HOST[:2]], r"expected float32\[4\] as in the first, got float32\[2\]"),
    ],
)
def test_iterator_that_ends_or_changes_its_shape(then, message):
    stream = BatchStream(itertools.chain(itertools.islice(batches(), 10), then))
    take = jax.jit(lambda rows: fetch_rows(stream, rows))
    for _ in range(10):
        jax.block_until_ready(take(jnp.arange(BATCH)))
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=message):
        jax.block_until_ready(take(jnp.arange(BATCH)))


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="holds no batch at all"):
        BatchStream([])
    with pytest.raises(TypeError, match=r"make stream = BatchStream\(iterator\) once"):
        fetch_rows(batches(), jnp.arange(BATCH))
    with pytest.raises(TypeError, match=r"pass array\.__getitem__ to MCMC\.run"):
        fetch_rows(Y.__getitem__, jnp.arange(BATCH))
    with pytest.raises(ValueError, match="control_variate needs all the data"):
        draws(BatchStream(batches()), kernel={"control_variate": {"loc": 2.0}})
