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

from numpyro_score.infer import BatchStream, fetch_rows
from tests.infer.minibatch_model import BATCH, NUM_ROWS, Y, make_mcmc

HOST = np.asarray(Y, np.float64)


def host_model(source):
    def model():
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
        with numpyro.plate("rows", NUM_ROWS, subsample_size=BATCH) as rows:
            numpyro.sample("y", dist.Normal(loc, 1.0), obs=fetch_rows(source, rows))

    return model


def draws(source, **options):
    mcmc = make_mcmc("sgld", model=host_model(source), **options)
    mcmc.run(random.key(0))
    return mcmc.get_samples(group_by_chain=True)["loc"]


def test_rows_from_the_host_give_the_draws_of_rows_on_the_device():
    asked = []

    def read(rows):
        asked.append(rows)
        return HOST[rows]

    def device_model(y):
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
        with numpyro.plate("rows", NUM_ROWS, subsample_size=BATCH) as rows:
            numpyro.sample("y", dist.Normal(loc, 1.0), obs=y[rows])

    options = {"num_chains": 2, "kernel": {"control_variate": {"loc": 2.0}}}
    from_host = draws(read, **options)
    mcmc = make_mcmc("sgld", model=device_model, **options)
    mcmc.run(random.key(0), Y)
    expected = mcmc.get_samples(group_by_chain=True)["loc"]
    np.testing.assert_allclose(from_host, expected, rtol=1e-4, atol=1e-5)
    assert max(len(rows) for rows in asked) == BATCH, "never more than a minibatch at a time"


def batches():
    rng = np.random.default_rng(0)
    while True:
        yield HOST[rng.choice(NUM_ROWS, BATCH, replace=False)]


def test_an_iterator_of_minibatches():
    sampled = draws(BatchStream(batches()), num_chains=2, num_warmup=200, num_samples=400)
    assert abs(sampled.mean() - HOST.mean()) < 0.3


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (lambda: itertools.islice(batches(), 10), "there is no batch 11"),
        (
            lambda: itertools.chain(itertools.islice(batches(), 10), [HOST[:2]]),
            r"expected float32\[4\] as in the first, got float32\[2\]",
        ),
    ],
)
def test_iterator_that_ends_or_changes_its_shape(stream, message):
    stream = BatchStream(stream())
    model = host_model(stream)
    kernel = make_mcmc("sgld", model=model).sampler
    start = kernel.init(random.key(0), 10, {"loc": jnp.array(1.0)}, (), {})
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(
            jax.lax.fori_loop(0, 30, lambda i, s: kernel.sample(s, (), {}), start)
        )


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="holds no batch at all"):
        BatchStream([])
    with pytest.raises(TypeError, match=r"make stream = BatchStream\(iterator\) once"):
        draws(batches())
    with pytest.raises(ValueError, match="control_variate needs all the data"):
        draws(BatchStream(batches()), kernel={"control_variate": {"loc": 2.0}})
