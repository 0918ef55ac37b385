"""The length of Hamiltonian trajectories, learned from several chains by the ChEES criterion.

Hoffman, Radul & Sountsov (2021), "An adaptive-MCMC scheme for setting trajectory lengths in
Hamiltonian Monte Carlo". A trajectory of length h L, for a jitter h in (0, 1), takes a chain from q
with velocity p to q' with p'. L maximizes the change in the estimator of the expected square,

    ChEES(L) = ¼ E[(‖q' - m‖² - ‖q - m‖²)²],  m the mean over the chains,

whose derivative in log L is E[h L (‖q' - m‖² - ‖q - m‖²) (q' - m)·p'] (their equation 8).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from blackjax.mcmc.dynamic_hmc import halton_sequence

from numpyro_score._typing import Array, PyTree

_OPTIMIZER = optax.adam(0.025, b1=0.0, b2=0.95)
#: A late step may not undo what many have found.
_LARGEST_STEP = 0.35
_JITTER_BITS = 10


class LengthState(NamedTuple):
    """What is known of the best trajectory length, in whitened coordinates.

    - **length** - the largest length of a trajectory; they are jittered below it.
    - **log_length** - the last iterate, of whose average ``length`` is the exponential.
    - **optimizer** - that of Adam.
    - **num_updates** - since the average began.
    """

    length: Array
    log_length: Array
    optimizer: PyTree
    num_updates: Array


def init_length(length: float | Array) -> LengthState:
    """Start the search at a length."""
    value = jnp.asarray(length, jnp.result_type(float))
    return LengthState(value, jnp.log(value), _OPTIMIZER.init(value), jnp.zeros((), int))


def jitter(i: Array) -> Array:
    """Return the i-th number of a sequence that fills [0, 1) evenly, the same for all chains.

    With one number of steps for all of them no chain waits for another.
    """
    return halton_sequence(i % 2**_JITTER_BITS, _JITTER_BITS)


def update_length(
    state: LengthState,
    fraction: Array,
    start: Array,
    end: Array,
    velocity: Array,
    accept_prob: Array,
) -> LengthState:
    """Take a step up the criterion.

    :param fraction: h of these trajectories.
    :param start: where they began, ``(chains, d)``, from any common point.
    :param end: where they ended, whether that was accepted or not.
    :param velocity: with which they ended there.
    :param accept_prob: how much each counts, ``(chains,)``.
    """
    slope = fraction * state.length * chees_slope(start, end, velocity, accept_prob)
    # Optax goes down.
    change, optimizer = _OPTIMIZER.update(-slope, state.optimizer)
    change = jnp.clip(change, -_LARGEST_STEP, _LARGEST_STEP)
    good = jnp.isfinite(change)
    log_length = state.log_length + jnp.where(good, change, 0.0)
    num_updates = state.num_updates + 1
    weight = num_updates**-0.5
    average = (1 - weight) * jnp.log(state.length) + weight * log_length
    keep = lambda new, old: jnp.where(good, new, old)  # noqa: E731
    optimizer = jax.tree.map(keep, optimizer, state.optimizer)
    return LengthState(jnp.exp(average), log_length, optimizer, num_updates)


def chees_slope(start: Array, end: Array, velocity: Array, accept_prob: Array) -> Array:
    """Return the derivative of the criterion in the length of these trajectories, up to a factor.

    :param start: ``(chains, d)``, as in :func:`update_length`.
    """
    # A trajectory that went to infinity has probability 0.
    usable = (accept_prob > 0)[:, None]
    end, velocity = jnp.where(usable, end, 0.0), jnp.where(usable, velocity, 0.0)
    weight = accept_prob / jnp.maximum(accept_prob.sum(), jnp.finfo(accept_prob.dtype).tiny)
    start, end = start - start.mean(0), end - weight @ end
    growth = jnp.sum(end**2, 1) - jnp.sum(start**2, 1)
    return weight @ (growth * jnp.sum(end * velocity, 1))


def restart_average(state: LengthState) -> LengthState:
    """Begin the average again, where the metric has changed."""
    return init_length(state.length)
