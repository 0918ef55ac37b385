"""The default random numbers, unrolled: those of JAX, to the bit, and of the published cipher."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random

from numpyro_score._threefry import restore_keys, threefry_2x32, unroll_keys
from numpyro_score.infer import MALA, MCMC, _programs
from tests.infer.test_cost import equations

# Key, counters and what they are enciphered to, from the test vectors of Random123 (20 rounds).
VECTORS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]
DRAWS = {
    "split": lambda key: random.split(key, (3, 2)),
    "fold_in": lambda key: random.fold_in(key, 77),
    "uint8": lambda key: random.bits(key, (5, 3), jnp.uint8),
    "uint16": lambda key: random.bits(key, (5,), jnp.uint16),
    "uint32": lambda key: random.bits(key, (), jnp.uint32),
    "uint64": lambda key: random.bits(key, (4,), jnp.uint64),
    "normal": lambda key: random.normal(key, (7,)),
    "gamma": lambda key: random.gamma(key, 2.0, (3,)),
    "choice": lambda key: random.permutation(key, 9),
}


class State(NamedTuple):
    """Keys as states of kernels hold them, beside numbers that are none."""

    rng_key: Any
    others: Any
    words: Any


def make_state(rng_key):
    others = {"typed": random.key(2), "rbg": random.key(3, impl="rbg")}
    return State(rng_key, others, jnp.arange(2, dtype=jnp.uint32))


def numbers(tree):
    """Return all leaves as numbers, whatever kind of key they are."""
    typed = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(random.key_data(x) if typed(x) else x) for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize(("key", "counters", "expected"), VECTORS)
def test_the_cipher_is_the_published_one(key, counters, expected):
    high, low = threefry_2x32(jnp.uint32(key), *map(jnp.uint32, counters))
    assert (int(high), int(low)) == expected


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("make_key", [random.key, random.PRNGKey], ids=["typed", "raw"])
def test_numbers_are_those_of_jax(make_key, draw):
    state = make_state(make_key(5))
    with jax.enable_x64(True):  # 64 bits of a number
        fast, slow = (numbers(draw(s.rng_key)) for s in (unroll_keys(state), state))
    for got, expected in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_numbers_of_a_batch_of_keys_are_those_of_jax():
    keys = random.split(random.key(1), 3)
    draw = jax.vmap(lambda key: random.normal(random.split(key)[1], (2,)))
    np.testing.assert_array_equal(draw(unroll_keys(keys)), draw(keys))


@pytest.mark.parametrize("make_key", [random.key, random.PRNGKey], ids=["typed", "raw"])
def test_keys_come_back_as_they_were(make_key):
    state = make_state(make_key(5))
    unrolled = unroll_keys(state)
    changed = [
        a.dtype != b.dtype for a, b in zip(*map(jax.tree.leaves, (unrolled, state)), strict=True)
    ]
    assert changed == [True, False, True, False]  # not rbg's, and not what is no key
    back = restore_keys(unrolled, state)
    assert [x.dtype for x in jax.tree.leaves(back)] == [x.dtype for x in jax.tree.leaves(state)]
    for got, expected in zip(numbers(back), numbers(state), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_where_jax_draws_other_numbers_keys_stay():
    with jax.threefry_partitionable(False):
        state = make_state(random.key(5))
        assert unroll_keys(state) is state


def model():
    numpyro.sample("x", dist.Normal(jnp.zeros(3), 1.0).to_event(1))


def implementations_in_the_loop(kernel):
    """Return the implementations of the keys that the loop over steps of a chunk draws with."""
    mcmc = MCMC(kernel, num_warmup=2, num_samples=2, progress_bar=False)
    mcmc.run(random.key(0))
    (programs,) = mcmc._programs._programs.values()
    chunk = jax.make_jaxpr(programs._traced_chunk)(mcmc.last_state, [], 1, 0, 1)
    loop = [e for e in chunk.eqns if e.primitive.name == "while"][-1]
    draws = [e for e in equations(loop.params["body_jaxpr"]) if e.primitive.name == "random_bits"]
    return {str(e.invars[0].aval.dtype) for e in draws}


def test_a_chunk_of_steps_has_unrolled_keys(monkeypatch):
    unrolled, default = (str(k.dtype) for k in (unroll_keys(random.key(0)), random.key(0)))
    assert implementations_in_the_loop(MALA(model)) == {unrolled}
    monkeypatch.setattr(_programs, "is_traceable", lambda kernel: False)
    assert implementations_in_the_loop(MALA(model)) == {default}
