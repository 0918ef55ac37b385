"""Every way this package has to draw from the posterior of an inverse problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from inverse_instances import Instance

from numpyro_score.distributions import DiffusionDistribution
from numpyro_score.infer import MALA, MCMC, AnnealedLangevin, ReplicaExchange, TemperedSMC
from numpyro_score.samplers import guidance, reverse_sde
from numpyro_score.sde import SDE


class Task(NamedTuple):
    """An instance, and what a method gets to know of its prior.

    - **network** - energy or score of the prior at all times of ``sde``.
    - **data_scale** - standard deviation of the prior's draws.
    """

    instance: Instance
    network: Callable[..., Any]
    sde: SDE
    data_scale: float
    num_draws: int

    @property
    def size(self) -> int:
        """How many entries x has."""
        return self.instance.prior.means.shape[1]

    def prior(self) -> DiffusionDistribution:
        """Return the prior as a distribution."""
        return DiffusionDistribution(
            self.network, self.sde, (self.size,), data_scale=self.data_scale
        )

    def model(self) -> Callable[[], None]:
        """Return the model, of x and data."""
        prior, noise_std = self.prior(), self.instance.noise_std
        matrix, y = (jnp.asarray(a, float) for a in (self.instance.matrix, self.instance.y))

        def model():
            x = numpyro.sample("x", prior)
            numpyro.sample("y", dist.Normal(matrix @ x, noise_std).to_event(1), obs=y)

        return model

    def measurement(self) -> guidance.Measurement:
        """Return the data as guidance takes them."""
        matrix, y = (jnp.asarray(a, float) for a in (self.instance.matrix, self.instance.y))
        return guidance.Measurement(lambda x: matrix @ x, y, self.instance.noise_std)


class Draws(NamedTuple):
    """Draws ``(n, d)``, evaluations of the network in all, and log p(y) where there is one.

    An evaluation is that at one event; of a divergence, one for each direction.
    """

    x: np.ndarray
    evaluations: float
    log_evidence: float | None = None


Method = Callable[[jax.Array, Task], Draws]
_STEPS = 200


def _noise(key: jax.Array, task: Task, size: int) -> jax.Array:
    return task.sde.prior((task.size,)).sample(key, (size,))


def guided(method: guidance.Guidance) -> Method:
    """Return the reverse diffusion with a guidance."""

    def draw(key: jax.Array, task: Task) -> Draws:
        start, walk = jax.random.split(key)
        x = _noise(start, task, task.num_draws)
        x = guidance.guided_diffusion(
            walk, task.network, task.sde, task.measurement(), x, guidance=method, num_steps=_STEPS
        )
        return Draws(np.asarray(x), 2 * _STEPS * task.num_draws)

    return draw


def pigdm(key: jax.Array, task: Task) -> Draws:
    """Draw by pseudoinverse guidance, told the scale of the data."""
    return guided(guidance.PiGDM(task.data_scale))(key, task)


def twisted(key: jax.Array, task: Task) -> Draws:
    """Draw by twisted diffusion, of four times as many particles."""
    start, walk, choose = jax.random.split(key, 3)
    num = 4 * task.num_draws
    x = _noise(start, task, num)
    found = guidance.twisted_diffusion(
        walk, task.network, task.sde, task.measurement(), x, num_steps=_STEPS
    )
    chosen = _systematic(choose, jnp.exp(found.log_weights), task.num_draws)
    evaluations = 2 * _STEPS * num
    return Draws(np.asarray(found.particles)[chosen], evaluations, float(found.log_evidence))


def _systematic(key: jax.Array, weights: jax.Array, size: int) -> np.ndarray:
    marks = (np.arange(size) + float(jax.random.uniform(key))) / size
    return np.minimum(np.searchsorted(np.cumsum(weights), marks), len(weights) - 1)


def annealed_langevin(key: jax.Array, task: Task) -> Draws:
    """Draw by Langevin dynamics through decreasing noise."""
    sampler = AnnealedLangevin(task.model(), task.num_draws // 4, progress_bar=False)
    sampler.run(key)
    moves = sampler.num_levels * sampler.num_moves * _per_move(task)
    evaluations = task.num_draws * (moves + 2 * task.prior().num_steps)
    return Draws(np.asarray(sampler.get_samples()["x"]), evaluations)


def tempered_smc(key: jax.Array, task: Task) -> Draws:
    """Draw by tempered sequential Monte Carlo, and keep every fourth particle."""
    sampler = TemperedSMC(task.model(), task.num_draws, progress_bar=False)
    sampler.run(key)
    stages = sampler.stages.ess.shape[1]
    moves = stages * sampler.num_moves * _per_move(task)
    evaluations = 4 * task.num_draws * (moves + 2 * task.prior().num_steps)
    x = np.asarray(sampler.get_samples()["x"])
    return Draws(_thin(x, task.num_draws), evaluations, sampler.log_evidence)


def replica_exchange(
    key: jax.Array, task: Task, num_chains: int = 16, num_steps: int = 6_000
) -> Draws:
    """Draw by replica exchange, and keep draws far apart."""
    # Data leave each level little room in some directions: its metric must know which.
    mover = MALA(task.model(), dense_mass=True)
    # There and back takes a walker some 600 steps in 8 dimensions, and 11,000 in 80.
    num_replicas = 64 if task.size > 20 else 16
    kernel = ReplicaExchange(mover, num_replicas=num_replicas, num_moves=10, num_nodes=4)
    num_warmup = num_steps // 4
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_steps,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key)
    replicas = kernel._num_replicas
    swap = replicas * kernel._num_nodes * (1 + task.size)
    a_step = replicas * (kernel._num_moves + 1) * _per_density(task) + swap
    evaluations = num_chains * (num_warmup + num_steps) * a_step
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    # As many of every chain, so that those of a chain are as far apart as they can be.
    x = _thin(x.swapaxes(0, 1), task.num_draws // num_chains)
    return Draws(x.reshape(-1, task.size), evaluations)


def mala(key: jax.Array, task: Task) -> Draws:
    """Draw by as many chains of MALA as draws, from the prior's draws on."""
    start, walk = jax.random.split(key)
    d = task.prior()
    noise = _noise(start, task, task.num_draws)
    x = reverse_sde(start, task.network, task.sde, noise)
    instance = task.instance

    def model():
        x = numpyro.sample("x", d.without_normalizer())
        matrix, y = (jnp.asarray(a, float) for a in (instance.matrix, instance.y))
        numpyro.sample("y", dist.Normal(matrix @ x, instance.noise_std).to_event(1), obs=y)

    mcmc = MCMC(
        MALA(model, adaptation="pooled"),
        num_warmup=999,
        num_samples=1,
        num_chains=task.num_draws,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(walk, init_params={"x": x})
    evaluations = task.num_draws * (1_000 * _per_density(task) + 2 * _STEPS)
    return Draws(np.asarray(mcmc.get_samples()["x"]), evaluations)


def _thin(x: np.ndarray, size: int) -> np.ndarray:
    return x[np.linspace(0, len(x) - 1, size).astype(int)]


def _is_energy(task: Task) -> bool:
    shapes = jnp.zeros(task.size), jnp.asarray(1.0)
    return jax.eval_shape(task.network, *shapes).shape == ()


def _per_move(task: Task) -> int:
    """Evaluations of a step of MALA: a line integral has three nodes, one of them known."""
    return 1 if _is_energy(task) else 2


def _per_density(task: Task) -> int:
    """Evaluations of a density: a learned score is integrated from an anchor, by 16 nodes."""
    return 1 if _is_energy(task) else 16


#: By name, in the order of the table; the exact ones are those from twisted diffusion on.
METHODS: dict[str, Method] = {
    "MALA from the prior": mala,
    "DPS": guided(guidance.DPS()),
    "PiGDM": pigdm,
    "MomentMatching": guided(guidance.MomentMatching()),
    "AnnealedLangevin": annealed_langevin,
    "twisted_diffusion": twisted,
    "TemperedSMC": tempered_smc,
    "ReplicaExchange": replica_exchange,
}
