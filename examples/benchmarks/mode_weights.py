"""How heavy is a mode: the toy of Song & Ermon (2019), section 3.2.2, by four samplers.

Of ⅕ N((-5, -5), I) + ⅘ N((5, 5), I) the weight of the second is 0.8. Langevin dynamics starts from
1,280 draws of the uniform on [-8, 8]² and, at one noise level, leaves each in the half where it
began; annealed, it is a little off. Replica exchange and tempered SMC are to be right: with the
exact score, and with one that was learned from 20,000 draws.

    python examples/benchmarks/mode_weights.py [--seeds 3]
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from tqdm import tqdm

from numpyro_score.distributions import DiffusionDistribution
from numpyro_score.infer import MALA, MCMC, ReplicaExchange, TemperedSMC
from numpyro_score.networks import NoiseEnergyMLP, NoiseScoreMLP
from numpyro_score.objectives import DiffusionScoreMatching
from numpyro_score.samplers import annealed_langevin
from numpyro_score.sde import VE, InTime, time_of
from numpyro_score.training import fit

SDE = VE(0.1, 20.0)
CENTRES, WEIGHTS = jnp.array([[-5.0, -5.0], [5.0, 5.0]]), jnp.array([0.2, 0.8])


def exact(x, t):
    """Energy of the mixture at all times."""
    distances = jnp.sum((x - CENTRES) ** 2, 1) / (1 + SDE.marginal_std(t) ** 2)
    return -jax.nn.logsumexp(jnp.log(WEIGHTS) - 0.5 * distances)


def learn(build: Callable, num_steps: int):
    """Return a network that learned the mixture from 20,000 draws."""
    mode_key, noise_key, net_key, fit_key = jax.random.split(jax.random.key(0), 4)
    modes = jax.random.bernoulli(mode_key, WEIGHTS[1], (20_000,)).astype(int)
    x = CENTRES[modes] + jax.random.normal(noise_key, (20_000, 2))
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps))
    network = InTime(build(2, key=net_key), SDE)
    objective = DiffusionScoreMatching(SDE)
    options = {"num_steps": num_steps, "optimizer": optimizer, "progress_bar": False}
    return fit(fit_key, network, x, objective, **options).network


def share(x) -> float:
    """Return the weight of the second mode."""
    return float((np.asarray(x).sum(-1) > 0).mean())


def langevin(key, network, levels, step_size: float, num_steps: int) -> float:
    """Return the weight that Langevin dynamics gives."""
    start, walk = jax.random.split(key)
    x = jax.random.uniform(start, (1_280, 2), minval=-8.0, maxval=8.0)
    at_level = lambda x, noise_scale: network(x, time_of(SDE, noise_scale))  # noqa: E731
    options = {"step_size": step_size, "num_steps": num_steps}
    return share(annealed_langevin(walk, at_level, levels, x, **options))


def model_of(network) -> Callable[[], None]:
    """Return the model, of the mixture alone."""
    prior = DiffusionDistribution(network, SDE, (2,), data_scale=5.0)
    return lambda: numpyro.sample("x", prior)


def replica_exchange(key, network) -> float:
    """Return the weight in 64 chains of 500 draws."""
    # By line integrals from an anchor: a learned score has too much curl for those of each step.
    mcmc = MCMC(
        ReplicaExchange(MALA(model_of(network)), num_replicas=8),
        num_warmup=300,
        num_samples=500,
        num_chains=64,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key)
    return share(mcmc.get_samples()["x"])


def tempered_smc(key, network) -> float:
    """Return the weight of 20,000 particles."""
    smc = TemperedSMC(model_of(network), 5_000, progress_bar=False)
    smc.run(key)
    return share(smc.get_samples()["x"])


SAMPLERS = {
    "Langevin": lambda key, network: langevin(key, network, (0.1,), 0.05, 1_000),
    "annealed Langevin": lambda key, network: langevin(
        key, network, tuple(np.geomspace(10.0, 0.1, 10)), 1e-3, 100
    ),
    "ReplicaExchange": replica_exchange,
    "TemperedSMC": tempered_smc,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Weights of modes.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5_000, help="of training")
    options = parser.parse_args()
    networks = {
        "exact": lambda: exact,
        "learned energy": lambda: learn(NoiseEnergyMLP, options.steps),
        "learned score": lambda: learn(NoiseScoreMLP, options.steps),
    }
    print(f"{'score':16}{'sampler':20}{'weight of the mode, 0.8':>30}{'seconds':>10}")
    for source, make in networks.items():
        network = make()
        for name, sampler in SAMPLERS.items():
            begin = time.perf_counter()
            seeds = tqdm(range(options.seeds), desc=f"{source}, {name}", leave=False)
            found = [sampler(jax.random.key(seed), network) for seed in seeds]
            seconds = (time.perf_counter() - begin) / options.seeds
            spread = f"{np.mean(found):.3f} [{min(found):.3f}, {max(found):.3f}]"
            print(f"{source:16}{name:20}{spread:>30}{seconds:10.1f}", flush=True)


if __name__ == "__main__":
    main()
