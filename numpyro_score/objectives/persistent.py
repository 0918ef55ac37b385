"""Persistent contrastive divergence: chains that go on from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from numpyro_score._checks import check_int, check_positive
from numpyro_score._typing import Array
from numpyro_score.objectives._base import batched_energy, map_rows
from numpyro_score.objectives._negatives import check_magnitude, contrast, negatives
from numpyro_score.objectives.contrastive_divergence import ContrastiveDivergence


class ReplayBuffer(NamedTuple):
    """Where the chains are, with the condition of each if there are conditions."""

    positions: Array
    condition: Array | None


@dataclass(frozen=True)
class PersistentContrastiveDivergence:
    r"""Contrastive divergence whose chains go on where the last step of the optimizer left them.

    The loss is that of :class:`ContrastiveDivergence`. Its negatives come from a replay buffer: a
    batch of chains is taken from it at random, some of them start afresh at data, all move by
    ``num_steps`` Langevin steps and go back. Over many steps of a slow optimizer a chain is then
    far longer than ``num_steps``, and forgets where it began.

    Use it in place of :class:`ContrastiveDivergence` for likelihoods: it finds modes that no data
    are near, and removes them. Not with a large learning rate, which outruns the chains. Modes
    that lie apart keep the share of the chains that started in them.

    Sources: T. Tieleman, Training restricted Boltzmann machines using approximations to the
    likelihood gradient, ICML (2008); Y. Du & I. Mordatch, Implicit generation and modeling with
    energy-based models, NeurIPS (2019), for the buffer that starts afresh.

    :param step_size: ε of the Langevin step, in squared units of the data.
    :param num_steps: steps of a chain per step of the optimizer, one gradient each.
    :param buffer_size: number of chains.
    :param restart_prob: probability that a chain that is taken starts afresh, in [0, 1).
    :param metropolis: whether steps are tested (MALA), so that the step size leaves no bias.
    :param magnitude: see :class:`ContrastiveDivergence`.
    :raises ValueError: a number out of its range.

    It has a memory: :func:`~numpyro_score.training.fit` keeps it from :meth:`init_memory`, and
    hands it to :meth:`update` at each step. Called like any objective, with ``(network, batch,
    key, condition=None)``, its chains start at the batch.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.objectives import PersistentContrastiveDivergence
    >>> objective = PersistentContrastiveDivergence(step_size=0.1, buffer_size=100)
    >>> data = jax.random.normal(jax.random.key(0), (500, 2))
    >>> memory = objective.init_memory(jax.random.key(1), data)
    >>> energy = lambda x: 0.5 * jnp.sum(x**2)
    >>> losses, memory = objective.update(energy, data[:32], jax.random.key(2), memory)
    >>> losses.shape, memory.positions.shape
    ((32,), (100, 2))
    """

    step_size: float
    num_steps: int = 10
    buffer_size: int = 4096
    restart_prob: float = 0.05
    metropolis: bool = True
    magnitude: float = 0.0

    noise_scale: ClassVar[float] = 0.0
    """What is learned is the density of the data as they are."""

    has_minimum: ClassVar[bool] = False
    """Its value does not tell a good network from a bad one."""

    def __post_init__(self):
        check_positive(self.step_size, "step_size")
        check_int(self.num_steps, "num_steps", 1)
        check_int(self.buffer_size, "buffer_size", 1)
        check_magnitude(self.magnitude)
        if isinstance(self.restart_prob, bool) or not 0 <= self.restart_prob < 1:
            raise ValueError(
                f"restart_prob must be at least 0 and below 1, got {self.restart_prob!r}."
            )

    def init_memory(
        self, rng_key: Array, data: Array, condition: Array | None = None
    ) -> ReplayBuffer:
        """Return a buffer of chains at random rows of the data.

        :param data: shape ``(n, *event_shape)``.
        :param condition: shape ``(n, ...)``; a chain keeps its own.
        """
        index = jax.random.randint(rng_key, (self.buffer_size,), 0, len(data))
        return ReplayBuffer(data[index], None if condition is None else condition[index])

    def update(
        self,
        network: Any,
        batch: Array,
        key: Array,
        memory: ReplayBuffer,
        condition: Array | None = None,
    ) -> tuple[Array, ReplayBuffer]:
        """Return one loss per example, shape ``(n,)``, and the buffer after the step."""
        energy = batched_energy(network, batch)
        pick_key, restart_key, chain_key = jax.random.split(key, 3)
        # Chains that lie side by side, from a random place on: none may move twice.
        num_chains = min(len(batch), self.buffer_size)
        first = jax.random.randint(pick_key, (), 0, self.buffer_size)
        taken = (first + jnp.arange(num_chains)) % self.buffer_size
        restarts = jax.random.bernoulli(restart_key, self.restart_prob, (num_chains,))

        def start(kept: Array, fresh: Array) -> Array:
            mask = restarts.reshape(-1, *[1] * (fresh.ndim - 1))
            return jnp.where(mask, fresh[:num_chains], kept[taken])

        # A chain has the condition that it started with.
        started = jax.tree.map(start, memory, ReplayBuffer(batch, condition))
        found = negatives(self, network, started.positions, chain_key, started.condition)
        low = map_rows(energy, condition, batch)
        high = map_rows(energy, started.condition, found)
        moved = started._replace(positions=found)
        memory = jax.tree.map(lambda kept, new: kept.at[taken].set(new), memory, moved)
        return contrast(low, high, self.magnitude), memory

    def __call__(
        self, network: Any, batch: Array, key: Array, condition: Array | None = None
    ) -> Array:
        """Return one loss per example, shape ``(n,)``, with chains that start at the batch."""
        without_memory = ContrastiveDivergence(
            self.step_size, self.num_steps, self.metropolis, magnitude=self.magnitude
        )
        return without_memory(network, batch, key, condition)
