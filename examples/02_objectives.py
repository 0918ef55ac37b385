"""Learn one density with every objective, and see which worked.

Two moons whose density is known, one energy network, one training loop; the objective is the only
argument that changes. The figure shows the densities, the table how far each is from the truth.

    python examples/02_objectives.py [--steps 6000] [--only dsm nce]
"""

import argparse
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist

from numpyro_score import networks
from numpyro_score import objectives as obj
from numpyro_score.diagnostics import kernel_stein_discrepancy
from numpyro_score.distributions import EnergyDistribution, estimate_log_normalizer
from numpyro_score.training import fit

NUM_ROWS, NUM_HELD_OUT = 20_000, 4_000
EXTENT = (-2.2, 3.2, -1.6, 2.1)


def two_moons() -> dist.Distribution:
    """Two half circles of 30 normals each: a density, a score and a sampler in closed form."""
    angle = np.linspace(0.0, np.pi, 30)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    centres = np.concatenate([upper, np.array([1.0, 0.5]) - upper])
    return dist.MixtureSameFamily(
        dist.Categorical(jnp.full(60, 1 / 60)),
        dist.Normal(jnp.asarray(centres, jnp.float32), 0.2).to_event(1),
    )


def contenders(train: jax.Array) -> dict[str, object]:
    """The objectives, with what each has to be told."""
    noise = dist.MultivariateNormal(train.mean(0), 1.5 * jnp.cov(train.T))
    return {
        "dsm": obj.DenoisingScoreMatching(noise_scale=0.05),
        "dsm, control variate": obj.DenoisingScoreMatching(0.02, control_variate=True),
        "esm": obj.ExplicitScoreMatching(),
        "esm, one probe": obj.ExplicitScoreMatching(num_probes=1),
        "ssm": obj.SlicedScoreMatching(num_projections=2, variance_reduced=False),
        "ssm-vr": obj.SlicedScoreMatching(),
        "nce": obj.NoiseContrastiveEstimation(noise, num_noise=4),
        "nce, ranking": obj.NoiseContrastiveEstimation(noise, num_noise=4, ranking=True),
        "cd": obj.ContrastiveDivergence(step_size=0.02, num_steps=10),
        "persistent cd": obj.PersistentContrastiveDivergence(step_size=0.02, num_steps=10),
        "energy discrepancy": obj.EnergyDiscrepancy(step_scale=0.3, num_negatives=32),
    }


def assess(network, truth: dist.Distribution, held_out: jax.Array) -> tuple[dict, jax.Array]:
    """Return the columns of the table, and log Z."""
    learned = EnergyDistribution(network, event_shape=(2,))
    score = jax.vmap(jax.grad(truth.log_prob))(held_out)
    off = learned.score(held_out) - score
    z = estimate_log_normalizer(learned, jax.random.key(5), num_temperatures=300)
    log_lik = learned.with_log_normalizer(z.log_normalizer).log_prob(held_out).mean()
    return {
        "score error": float(jnp.sqrt((off**2).sum(1).mean() / (score**2).sum(1).mean())),
        "KSD": float(kernel_stein_discrepancy(learned.score(held_out), held_out)),
        "log-likelihood": float(log_lik),
        "± (AIS)": float(z.standard_error),
        "short of truth": float(truth.log_prob(held_out).mean() - log_lik),
    }, z.log_normalizer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--only", nargs="+", help="names of objectives; by default all")
    options = parser.parse_args()
    truth = two_moons()
    data = truth.sample(jax.random.key(0), (NUM_ROWS + NUM_HELD_OUT,))
    train, held_out = data[:NUM_ROWS], data[NUM_ROWS:]
    chosen = contenders(train)
    chosen = {name: chosen[name] for name in options.only or chosen}

    x, y = (np.linspace(*EXTENT[i : i + 2], 120, dtype=np.float32) for i in (0, 2))
    grid = jnp.stack(jnp.meshgrid(x, y), -1)
    log_densities = {"truth": truth.log_prob(grid)}
    print(
        f"{'':22}{'seconds':>9}{'score error':>13}{'KSD':>8}{'log-likelihood':>16}{'± (AIS)':>9}",
        end="",
    )
    print(f"{'short of truth':>16}")
    for name, objective in chosen.items():
        network = networks.NormalizedEnergy(
            networks.EnergyMLP(2, width=128, depth=3, key=jax.random.key(1))
        )
        start = time.perf_counter()
        result = fit(
            jax.random.key(2),
            network,
            train,
            objective,
            num_steps=options.steps,
            progress_bar=False,
        )
        seconds = time.perf_counter() - start
        row, log_z = assess(result.network, truth, held_out)
        log_densities[name] = -jax.vmap(jax.vmap(result.network))(grid) - log_z
        print(
            f"{name:22}{seconds:9.0f}{row['score error']:13.3f}{row['KSD']:8.3f}"
            f"{row['log-likelihood']:16.3f}{row['± (AIS)']:9.3f}{row['short of truth']:16.3f}"
        )

    figure, axes = plt.subplots(3, 4, figsize=(10, 6), layout="constrained")
    for ax, (name, log_density) in zip(axes.flat, log_densities.items(), strict=False):
        ax.imshow(jnp.exp(log_density), extent=EXTENT, origin="lower", vmin=0, vmax=0.35)
        ax.set_title(name, fontsize=9)
    for ax in axes.flat:
        ax.axis("off")
    figure.savefig("objectives.png", dpi=150)


if __name__ == "__main__":
    main()
