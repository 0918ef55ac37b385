"""Register a kernel of your own, and run all that are registered on one model.

An algorithm is anything with BlackJAX's ``init`` and ``build_kernel``. What it needs to know of
NumPyro is nothing: step size and metric are tuned, chains vectorized, states resumed around it.

    python examples/01_own_kernel.py [--quick]
"""

import argparse
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from numpyro_score.infer import MCMC, available_kernels, register_kernel


class State(NamedTuple):
    position: jax.Array
    logdensity: jax.Array
    logdensity_grad: jax.Array


class Info(NamedTuple):
    acceptance_rate: jax.Array


class RandomWalk:
    """Random-walk Metropolis; its gradient is there for the metric alone."""

    def init(self, position, logdensity_fn):
        return State(position, *jax.value_and_grad(logdensity_fn)(position))

    def build_kernel(self):
        def kernel(rng_key, state, logdensity_fn, step_size):
            walk_key, accept_key = jax.random.split(rng_key)
            step = step_size * jax.random.normal(walk_key, state.position.shape)
            new = self.init(state.position + step, logdensity_fn)
            ratio = jnp.exp(jnp.minimum(new.logdensity - state.logdensity, 0.0))
            accept = jax.random.uniform(accept_key) < ratio
            return jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, state), Info(ratio)

        return kernel


register_kernel(
    "random_walk",
    RandomWalk(),
    description="random-walk Metropolis, the one to beat",
    reference="Metropolis et al. (1953)",
    target_accept_prob=0.234,
)

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


# Kernels of models with an unknown Z, and of those with a diffusion prior.
OF_OTHER_MODELS = ("exchange", "replica_exchange")


def eight_schools():
    """Rubin (1981), non-centred."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", 8):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("effect", dist.Normal(mu + tau * z, ERROR), obs=EFFECT)


def run(kernel_cls, num_samples):
    """Return the least ESS a second of a second run, the worst R-hat, and the mean of tau."""
    mcmc = MCMC(
        kernel_cls(eight_schools),
        num_warmup=num_samples // 2,
        num_samples=num_samples,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0))  # compiles; the second run does not
    start = time.perf_counter()
    mcmc.run(jax.random.key(1))
    draws = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
    seconds = time.perf_counter() - start
    ess = min(np.min(effective_sample_size(x)) for x in draws.values())
    r_hat = max(np.max(split_gelman_rubin(x)) for x in draws.values())
    return ess / seconds, r_hat, draws["tau"].mean()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a rehearsal")
    quick = parser.parse_args().quick
    num_samples = 100 if quick else 2_000
    kernels = available_kernels()
    print(kernels, end="\n\n")
    print(f"{'':16}{'ESS/s':>8}{'R-hat':>8}{'E[tau]':>8}   (4 chains, warm-up included)")
    for name, info in kernels.items():
        if quick and name not in ("mala", "random_walk"):
            continue
        if "minibatches" not in info.needs and name not in OF_OTHER_MODELS:
            ess, r_hat, tau = run(info.kernel, num_samples)
            print(f"{name:16}{ess:8.0f}{r_hat:8.3f}{tau:8.2f}", flush=True)
