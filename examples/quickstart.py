"""Learn a prior from images, and use it to deblur one of them with unknown noise.

The data are scikit-learn's 1,797 handwritten digits of 8×8 pixels, which ship with the package. A
held-out digit is blurred and made noisy; image and noise level are inferred together, under the
learned prior and, to show what that buys, under a Gaussian prior of the same images.

    python examples/quickstart.py               # one digit, figure and ArviZ file
    python examples/quickstart.py --digits 10   # ten digits, a table
"""

from __future__ import annotations

import argparse
import time

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import MCMC
from quickstart_figure import save_figure
from sklearn.datasets import load_digits

from numpyro_score import networks, objectives
from numpyro_score.distributions import EnergyDistribution
from numpyro_score.infer import MALA
from numpyro_score.training import fit

NOISE_SCALE = 0.07  # of the objective: the prior is that of images with this much grain
BLUR_WIDTH, NOISE = 0.7, 0.1  # of the observation; the model does not know the second
NUM_HELD_OUT = 200


def load_images(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out images with pixels in [0, 1], one a row."""
    images = (load_digits().data / 16).astype(np.float32)
    images = images[np.random.default_rng(seed).permutation(len(images))]
    return images[NUM_HELD_OUT:], images[:NUM_HELD_OUT]


def blur_operator() -> jnp.ndarray:
    """The 64×64 matrix of a Gaussian blur whose rows sum to 1."""
    pixel = np.arange(8)
    kernel = np.exp(-0.5 * ((pixel[:, None] - pixel) / BLUR_WIDTH) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    return jnp.asarray(np.kron(kernel, kernel), jnp.float32)


def learn_prior(train: np.ndarray) -> EnergyDistribution:
    """Fit an energy by denoising score matching; weight decay against overfitting 1,600 images."""
    num_steps = 4_000
    network = networks.EnergyMLP(64, width=256, depth=2, key=jax.random.key(0))
    schedule = optax.cosine_decay_schedule(2e-3, num_steps)
    result = fit(
        jax.random.key(1),
        network,
        train,
        objectives.DenoisingScoreMatching(noise_scale=NOISE_SCALE),
        num_steps=num_steps,
        optimizer=optax.adamw(schedule, weight_decay=0.5),
    )
    print(result)
    return EnergyDistribution(result.network, event_shape=(64,))


def gaussian_prior(train: np.ndarray) -> dist.Distribution:
    """The Gaussian with the mean and covariance of the same images with the same grain."""
    covariance = np.cov(train.T) + NOISE_SCALE**2 * np.eye(64)
    return dist.MultivariateNormal(train.mean(0), covariance)


def deblurring(prior: dist.Distribution):
    """A NumPyro model with ``prior`` for the image."""

    def model(A, y):
        x = numpyro.sample("x", prior)
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(A @ x, noise).to_event(1), obs=y)

    return model


def infer(prior: dist.Distribution, A, y) -> MCMC:
    """Draw from the posterior: 4 chains, 4,000 draws each, every fifth step kept."""
    mcmc = MCMC(
        MALA(deblurring(prior), dense_mass=True),
        num_warmup=2_000,
        num_samples=20_000,
        thinning=5,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(2), A, y, extra_fields=("accept_prob", "potential_energy"))
    return mcmc


def score_card(mcmc: MCMC, truth: np.ndarray) -> dict[str, float]:
    """PSNR of the posterior mean, coverage of 90 % intervals, and the health of the chains."""
    draws = jax.device_get(mcmc.get_samples(group_by_chain=True))
    pixels = draws["x"].reshape(-1, 64)
    low, high = np.quantile(pixels, [0.05, 0.95], axis=0)
    posterior = az.convert_to_dataset(draws)
    return {
        "psnr": -10 * np.log10(np.mean((pixels.mean(0) - truth) ** 2)),
        "coverage": np.mean((low <= truth) & (truth <= high)),
        "noise": float(draws["noise"].mean()),
        "acceptance": float(mcmc.get_extra_fields()["accept_prob"].mean()),
        "max_r_hat": max(float(v.max()) for v in az.rhat(posterior).values()),
        "min_ess": min(float(v.min()) for v in az.ess(posterior).values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--digits", type=int, default=1, help="how many held-out digits to deblur")
    num_digits = parser.parse_args().digits
    if not 1 <= num_digits <= NUM_HELD_OUT:
        parser.error(f"--digits must lie between 1 and {NUM_HELD_OUT}, got {num_digits}")

    start = time.perf_counter()
    train, held_out = load_images()
    A = blur_operator()
    priors = {"learned": learn_prior(train), "Gaussian": gaussian_prior(train)}

    cards: dict[str, list[dict[str, float]]] = {name: [] for name in priors}
    grain = np.random.default_rng(7).normal(size=(NUM_HELD_OUT, 64))
    for i in range(num_digits):
        truth = held_out[i]
        y = jnp.asarray(A @ truth + NOISE * grain[i], jnp.float32)
        for name, prior in priors.items():
            mcmc = infer(prior, A, y)
            cards[name].append(score_card(mcmc, truth))
            print(f"digit {i} {name:>8}: " + format_card(cards[name][-1]), flush=True)
            if i == 0 and name == "learned":
                posterior = az.from_numpyro(mcmc)
                print(az.summary(posterior).to_string())
                posterior.to_netcdf("quickstart.nc")
                save_figure("quickstart.png", truth, y, mcmc, NOISE)
                print("wrote quickstart.nc and quickstart.png")

    if num_digits > 1:
        summarize(cards)
    print(f"{time.perf_counter() - start:.0f} seconds, compilation included")


def format_card(card: dict[str, float]) -> str:
    """One line for one posterior."""
    return (
        f"PSNR {card['psnr']:.2f} dB, 90 % intervals cover {card['coverage']:.0%} of the pixels, "
        f"noise {card['noise']:.3f} (true {NOISE}), acceptance {card['acceptance']:.2f}, "
        f"max R-hat {card['max_r_hat']:.4f}, min ESS {card['min_ess']:.0f}"
    )


def summarize(cards: dict[str, list[dict[str, float]]]) -> None:
    """Compare the priors over all digits."""
    psnr = {name: np.array([card["psnr"] for card in rows]) for name, rows in cards.items()}
    wins = int(np.sum(psnr["learned"] > psnr["Gaussian"]))
    print(f"\nthe learned prior has the higher PSNR on {wins} of {len(psnr['learned'])} digits")
    for name, rows in cards.items():
        acceptance = [card["acceptance"] for card in rows]
        print(
            f"{name:>8}: mean PSNR {psnr[name].mean():.2f} dB, "
            f"coverage {np.mean([card['coverage'] for card in rows]):.1%}, "
            f"acceptance {min(acceptance):.2f} to {max(acceptance):.2f}, "
            f"max R-hat {max(card['max_r_hat'] for card in rows):.4f}, "
            f"min ESS {min(card['min_ess'] for card in rows):.0f}"
        )


if __name__ == "__main__":
    main()
