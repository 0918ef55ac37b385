"""Simulation-based inference: the posterior of a simulator as a conditional diffusion.

Two moons (Greenberg et al. 2019): parameters in a square, a simulator without a likelihood, and for
each observation a posterior of two crescents. A diffusion learns p(θ | y) from simulations alone,
for all observations at once. The table tells how well a classifier can tell its draws from exact
ones (C2ST; 0.5 is not at all), and the figure shows both. In a model with more data, the same class
learns p(y | θ): `DiffusionDistribution(network, sde, (2,), condition=theta)` is normalized, and may
be observed under a plate.

    python examples/04_simulation_based_inference.py [--quick] [--steps 8000]
"""

import argparse
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

from numpyro_score.diagnostics import classifier_two_sample_test
from numpyro_score.distributions import DiffusionDistribution
from numpyro_score.networks import NoiseScoreMLP
from numpyro_score.objectives import DiffusionScoreMatching
from numpyro_score.sde import VE, InTime
from numpyro_score.training import fit

OBSERVATIONS = jnp.array([[0.0, 0.0], [-0.6, 0.2], [-0.2, -0.7]])


def crescent(key, size: int):
    angle_key, radius_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, (size,), minval=-jnp.pi / 2, maxval=jnp.pi / 2)
    radius = 0.1 + 0.01 * jax.random.normal(radius_key, (size,))
    return jnp.stack([radius * jnp.cos(angle) + 0.25, radius * jnp.sin(angle)], 1)


def simulate(key, theta):
    shift = jnp.stack([-jnp.abs(theta.sum(1)), theta[:, 1] - theta[:, 0]], 1)
    return crescent(key, len(theta)) + shift / jnp.sqrt(2)


def exact_posterior(key, y, size: int):
    """Solve for θ at each point of the crescent, and keep what lies in the square."""
    points_key, side_key = jax.random.split(key)
    points = crescent(points_key, 8 * size)
    across = (points[:, 0] - y[0]) * jax.random.rademacher(side_key, (8 * size,), float)
    along = y[1] - points[:, 1]
    theta = jnp.stack([across - along, across + along], 1) / jnp.sqrt(2)
    inside = (jnp.abs(theta) <= 1).all(1) & (points[:, 0] >= y[0])
    return theta[inside][:size]


def learn_posterior(num_simulations: int, num_steps: int) -> tuple:
    theta = jax.random.uniform(jax.random.key(0), (num_simulations, 2), minval=-1, maxval=1)
    y = simulate(jax.random.key(1), theta)
    sde = VE(min_std=0.002, max_std=4.0)
    network = NoiseScoreMLP(2, depth=4, condition_size=2, key=jax.random.key(2))
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, num_steps), weight_decay=1e-2)
    result = fit(
        jax.random.key(3),
        InTime(network, sde),
        theta,
        DiffusionScoreMatching(sde),
        condition=y,
        num_steps=num_steps,
        optimizer=optimizer,
    )
    return result.network, sde


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--simulations", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--quick", action="store_true", help="a rehearsal")
    options = parser.parse_args()
    num_draws = 200 if options.quick else 4_000
    if options.quick:
        options.simulations, options.steps = [500], 100
    keys = jax.random.split(jax.random.key(4), 2 * len(OBSERVATIONS))
    exact = [exact_posterior(k, y, num_draws) for k, y in zip(keys, OBSERVATIONS, strict=False)]
    rows, columns = len(options.simulations) + 1, len(OBSERVATIONS)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3 * columns, 3 * rows), sharex=True, sharey=True
    )
    axes[0, 0].set(xlim=(-1, 1), ylim=(-1, 1), xlabel="θ₁", ylabel="θ₂")
    for ax, y, draws in zip(axes[0], OBSERVATIONS, exact, strict=True):
        ax.plot(*draws.T, ",")
        ax.set_title(f"exact, y = ({y[0]:.1f}, {y[1]:.1f})", fontsize=9)
    for row, num_simulations in zip(axes[1:], options.simulations, strict=True):
        begin = time.perf_counter()
        network, sde = learn_posterior(num_simulations, options.steps)
        seconds, found = time.perf_counter() - begin, []
        for ax, y, theirs, key in zip(row, OBSERVATIONS, exact, keys[columns:], strict=True):
            posterior = DiffusionDistribution(network, sde, (2,), condition=y)
            draws = posterior.sample(key, (num_draws,))
            found.append(classifier_two_sample_test(jax.random.key(5), draws, theirs).value)
            ax.plot(*draws.T, ",")
            ax.set_title(f"{num_simulations:,} simulations, C2ST {found[-1]:.2f}", fontsize=9)
        told = ", ".join(f"{value:.3f}" for value in found)
        print(f"{num_simulations:,} simulations: C2ST {told}; learned in {seconds:.0f} s")
    figure.tight_layout()
    figure.savefig("simulation_based_inference.png", dpi=120)


if __name__ == "__main__":
    main()
