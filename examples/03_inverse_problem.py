"""Which digit was it? An image of which half is missing, and all that it may have been.

A diffusion prior is learned from digits, as one energy for all levels of noise. Of one digit only
the upper half is seen, blurred and with noise of unknown size. One chain of MALA shows what it met;
replica exchange and tempered SMC agree, and SMC tells which of two blurs the data speak for.

    python examples/03_inverse_problem.py [--quick]
"""

import argparse

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from quickstart import load_images
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from numpyro_score.distributions import DiffusionDistribution
from numpyro_score.infer import MALA, MCMC, ReplicaExchange, TemperedSMC
from numpyro_score.networks import NoiseEnergyMLP
from numpyro_score.objectives import DiffusionScoreMatching
from numpyro_score.sde import VE, InTime, largest_distance
from numpyro_score.training import fit

BLUR, RIVAL_BLUR, NOISE = 0.6, 1.2, 0.1
GRAIN = 0.1  # noise that stays: the prior is that of images with this much


def learn_prior(images: np.ndarray, num_steps: int) -> DiffusionDistribution:
    sde = VE(GRAIN, largest_distance(images))
    network = InTime(NoiseEnergyMLP(64, width=256, key=jax.random.key(0)), sde)
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, num_steps), weight_decay=0.5)
    options = {"num_steps": num_steps, "optimizer": optimizer}
    result = fit(jax.random.key(1), network, images, DiffusionScoreMatching(sde), **options)
    return DiffusionDistribution(result.network, sde, (64,))


def blur_matrix(width: float) -> jax.Array:
    pixel = np.arange(8)
    kernel = np.exp(-0.5 * ((pixel[:, None] - pixel) / width) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    return jnp.asarray(np.kron(kernel, kernel), jnp.float32)[:32]


def seen_through_blur(prior: dist.Distribution):
    def model(A, y):
        x = numpyro.sample("x", prior)
        noise = numpyro.sample("noise", dist.LogNormal(-2.0, 0.5))
        numpyro.sample("y", dist.Normal(A @ x, noise).to_event(1), obs=y)

    return model


def draw_in_three_ways(prior: DiffusionDistribution, A, y, short: bool) -> dict:
    scale, num_replicas, num_moves = (50, 4, 2) if short else (1, 32, 20)
    options = {"num_warmup": 2_000 // scale, "num_samples": 4_000 // scale}
    one = MCMC(MALA(seen_through_blur(prior.without_normalizer())), **options)
    one.run(jax.random.key(2), A, y)
    model = seen_through_blur(prior)
    replicas = {"num_replicas": num_replicas, "num_moves": num_moves, "num_nodes": 2}
    ladder = ReplicaExchange(MALA(model), **replicas)
    options = {"num_warmup": 500 // scale, "num_samples": 1_000 // scale, "num_chains": 4}
    many = MCMC(ladder, chain_method="vectorized", **options)
    many.run(jax.random.key(3), A, y)
    smc = TemperedSMC(model, 4_000 // scale)
    smc.run(jax.random.key(4), A, y)
    return {"one chain of MALA": one, "replica exchange": many, "tempered SMC": smc}


def save_figure(path: str, truth, y, found: dict, of_digits: dict) -> None:
    figure, axes = plt.subplots(len(found), 11, figsize=(11, 4), layout="constrained")
    for k, (name, samples) in enumerate(found.items()):
        some = samples[np.linspace(0, len(samples) - 1, 9).astype(int)]
        pictures = [truth, np.concatenate([y, np.full(32, np.nan)]), *some]
        for axis, picture in zip(axes[k], pictures, strict=True):
            axis.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axis.set_axis_off()
        told = ", ".join(f"{d}: {p:.0%}" for d, p in enumerate(of_digits[name]) if p > 0.02)
        axes[k, 2].annotate(f"{name} ({told})", (0, 1.08), None, "axes fraction", in_layout=False)
    axes[0, 0].set_title("truth", fontsize=9)
    axes[0, 1].set_title("seen", fontsize=9)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a rehearsal")
    quick = parser.parse_args().quick
    train, held_out = load_images()
    prior = learn_prior(train, 100 if quick else 6_000)
    truth, A = held_out[3], blur_matrix(BLUR)
    y = A @ truth + NOISE * jax.random.normal(jax.random.key(5), (32,))
    runs = draw_in_three_ways(prior, A, y, quick)
    replicas = runs["replica exchange"]
    print(az.summary(az.from_numpyro(replicas), var_names=["noise"]).to_string())
    print(f"round trips of each chain: {replicas.last_state.journeys.round_trips.tolist()}")
    judge = KNeighborsClassifier(5).fit(*load_digits(return_X_y=True))
    found = {name: np.asarray(run.get_samples()["x"]) for name, run in runs.items()}
    shares = {
        k: np.bincount(judge.predict(16 * x), minlength=10) / len(x) for k, x in found.items()
    }
    for name, share in shares.items():
        print(f"{name:>18}: " + "  ".join(f"{k}: {p:4.0%}" for k, p in enumerate(share)))
    rival = TemperedSMC(seen_through_blur(prior), runs["tempered SMC"].num_samples)
    rival.run(jax.random.key(6), blur_matrix(RIVAL_BLUR), y)
    for width, run in ((BLUR, runs["tempered SMC"]), (RIVAL_BLUR, rival)):
        evidence = f"{run.log_evidence:.1f} ± {run.log_evidence_error:.1f}"
        print(f"log evidence of a blur of {width} pixels: {evidence}")
    save_figure("inverse_problem.png", truth, y, found, shares)


if __name__ == "__main__":
    main()
