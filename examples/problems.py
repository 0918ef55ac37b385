"""What the objectives are compared on: two moons, and handwritten digits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
from sklearn.datasets import load_digits

from numpyro_score import networks
from numpyro_score import objectives as obj
from numpyro_score.distributions import DensityDistribution, EnergyDistribution
from numpyro_score.plotting import plot_density
from numpyro_score.samplers import Langevin

MOONS_EXTENT = (-2.2, 3.2, -1.6, 2.1)
DIGITS_NOISE = 0.15


class Problem(NamedTuple):
    """Data, and who learns them.

    - **truth** - the distribution of the data, where it is known.
    - **contenders** - a network and an objective by name.
    - **num_temperatures** - for the estimate of log Z.
    - **show** - draws what was learned into axes.
    """

    train: jax.Array
    held_out: jax.Array
    truth: dist.Distribution | None
    contenders: dict[str, tuple[Any, Any]]
    num_temperatures: int
    show: Callable[[plt.Axes, EnergyDistribution], Any]


def contenders(train: jax.Array, energy: Any, scale: float, baselines: dict[str, Any]) -> dict:
    """Every objective with the same network, and the restricted families.

    :param scale: the standard deviation of the narrowest direction of the data.
    """
    noise = dist.MultivariateNormal(train.mean(0), 1.5 * jnp.cov(train.T))
    chains = {"step_size": scale**2 / 2, "num_steps": 10}
    objectives = {
        "dsm": obj.DenoisingScoreMatching(noise_scale=scale / 4),
        "dsm, control variate": obj.DenoisingScoreMatching(scale / 10, control_variate=True),
        "esm": obj.ExplicitScoreMatching(),
        "esm, one probe": obj.ExplicitScoreMatching(num_probes=1),
        "ssm": obj.SlicedScoreMatching(num_projections=2, variance_reduced=False),
        "ssm-vr": obj.SlicedScoreMatching(),
        "nce": obj.NoiseContrastiveEstimation(noise, num_noise=4),
        "nce, ranking": obj.NoiseContrastiveEstimation(noise, num_noise=4, ranking=True),
        "cd": obj.ContrastiveDivergence(**chains),
        "persistent cd": obj.PersistentContrastiveDivergence(**chains),
        "energy discrepancy": obj.EnergyDiscrepancy(step_scale=1.5 * scale, num_negatives=32),
    }
    energies = {name: (networks.NormalizedEnergy(energy), o) for name, o in objectives.items()}
    return energies | {name: (net, obj.MaximumLikelihood()) for name, net in baselines.items()}


class OfImages(networks.DensityNetwork):
    """A density of images as one of vectors: all that a density network of your own needs."""

    images: networks.CausalConvDensity

    def __call__(self, x, condition=None):
        return self.images(x.reshape(self.images.image_shape))

    def sample(self, rng_key, sample_shape=(), condition=None):
        return self.images.sample(rng_key, sample_shape).reshape(*sample_shape, -1)

    def fit_base(self, data, noise_scale=0.0, condition=None):
        images = data.reshape(-1, *self.images.image_shape)
        return OfImages(self.images.fit_base(images, noise_scale))


def two_moons() -> Problem:
    """Two half circles of 30 normals each: a density, a score and a sampler in closed form."""
    angle = np.linspace(0.0, np.pi, 30)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    centres = np.concatenate([upper, np.array([1.0, 0.5]) - upper])
    truth = dist.MixtureSameFamily(
        dist.Categorical(jnp.full(60, 1 / 60)),
        dist.Normal(jnp.asarray(centres, jnp.float32), 0.2).to_event(1),
    )
    data = truth.sample(jax.random.key(0), (24_000,))
    train, held_out = data[:20_000], data[20_000:]
    key = jax.random.key(1)
    baselines = {
        "flow": networks.FlowDensity(2, key=key),
        "autoregressive": OfImages(networks.CausalConvDensity((1, 2), key=key)),
        "VAE, estimated": networks.VAE((2,), 2, key=key),
    }
    energy = networks.EnergyMLP(2, width=64, depth=3, key=key)
    who = contenders(train, energy, 0.2, baselines)
    return Problem(train, held_out, truth, who, 300, show_density)


def digits() -> Problem:
    """Handwritten digits of 64 pixels in [0, 1], blurred by noise of standard deviation 0.15.

    Ten noisy copies of each: the density of grey levels alone would have no bound.
    """
    images = jnp.asarray(load_digits().data, jnp.float32) / 16
    images = jax.random.permutation(jax.random.key(0), images)
    copies = jnp.tile(images, (10, 1, 1))
    copies += DIGITS_NOISE * jax.random.normal(jax.random.key(1), copies.shape)
    train, held_out = copies[:, :1_500].reshape(-1, 64), copies[0, 1_500:]
    key = jax.random.key(2)
    baselines = {
        "flow": networks.FlowDensity(64, width=128, key=key),
        "autoregressive": OfImages(networks.CausalConvDensity((8, 8), width=16, depth=2, key=key)),
        "VAE, estimated": networks.VAE((64,), 16, key=key),
    }
    who = contenders(train, networks.EnergyMLP(64, depth=3, key=key), DIGITS_NOISE, baselines)
    del who["esm"]  # 64 second derivatives a row: an hour where the others take a minute
    return Problem(train, held_out, None, who, 1_000, show_draws)


def show_density(ax: plt.Axes, learned: EnergyDistribution) -> None:
    plot_density(learned, extent=MOONS_EXTENT, num_points=120, vmax=0.35, colorbar=False, ax=ax)


def show_draws(ax: plt.Axes, learned: EnergyDistribution) -> None:
    if isinstance(learned.network, networks.DensityNetwork):
        learned = DensityDistribution(learned.network, (64,))
    else:
        learned = EnergyDistribution(learned.network, (64,), sampler=Langevin(2_000))
    draws = np.asarray(learned.sample(jax.random.key(9), (4, 4))).reshape(4, 4, 8, 8)
    apart = np.pad(draws, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=0.5)
    sheet = apart.transpose(0, 2, 1, 3).reshape(36, 36)[:-1, :-1]
    ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)


PROBLEMS = {"moons": two_moons, "digits": digits}
