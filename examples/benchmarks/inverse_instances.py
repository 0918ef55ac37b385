"""Linear-Gaussian inverse problems with Gaussian-mixture priors, and their exact posteriors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

#: The families that are generated where no folder is given: name to (d_x, d_y).
PAPER = {"paper_dx8_dy1": (8, 1), "paper_dx8_dy2": (8, 2), "paper_dx8_dy4": (8, 4)}
PAPER |= {"paper_dx80_dy1": (80, 1), "paper_dx80_dy2": (80, 2)}
ANISOTROPIC = {"aniso_d2": (2, 1), "aniso_d8": (8, 2)}


class Mixture(NamedTuple):
    """Σ w_k N(m_k, C_k): ``(K,)``, ``(K, d)`` and ``(K, d, d)`` or, of one C, ``(1, d, d)``."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def narrowest(self) -> float:
        """The least standard deviation of a mode in any direction."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariances).min()))

    def sample(self, seed: int, size: int) -> np.ndarray:
        """Return exact draws of shape ``(size, d)``."""
        rng = np.random.default_rng(seed)
        k = rng.choice(len(self.weights), size, p=self.weights)
        values, axes = np.linalg.eigh(self.covariances)
        roots = axes * np.sqrt(np.maximum(values, 0.0))[:, None]
        roots = np.broadcast_to(roots, (len(self.weights), *roots.shape[1:]))
        noise = rng.normal(size=(size, self.means.shape[1]))
        return self.means[k] + np.einsum("nij,nj->ni", roots[k], noise)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Return log w_k + log N(x; m_k, C_k) for rows ``x``, shape ``(n, K)``."""
        values, axes = np.linalg.eigh(self.covariances)
        away = np.einsum(
            "kij,nki->nkj",
            np.broadcast_to(axes, (len(self.means), *axes.shape[1:])),
            x[:, None] - self.means,
        )
        density = -0.5 * (away**2 / values + np.log(2 * np.pi * values)).sum(-1)
        return np.log(np.maximum(self.weights, 1e-300)) + density

    def energy(self, sde):
        """Return the energy of the mixture at all times of a diffusion, with its normalizer."""
        values, axes = np.linalg.eigh(self.covariances)
        aligned = np.allclose(self.covariances, np.eye(axes.shape[-1]) * values[:, :, None])
        log_weights = np.log(np.maximum(self.weights, 1e-300))

        def energy(x, t):
            alpha, sigma = sde.mean_scale(t), sde.marginal_std(t)
            spread = alpha**2 * jnp.asarray(values, x.dtype) + sigma**2
            away = x - alpha * jnp.asarray(self.means, x.dtype)
            if not aligned:
                away = jnp.einsum("kij,ki->kj", jnp.asarray(axes, x.dtype), away)
            density = -0.5 * jnp.sum(away**2 / spread + jnp.log(2 * jnp.pi * spread), 1)
            return -logsumexp(jnp.asarray(log_weights, x.dtype) + density)

        return energy


class Instance(NamedTuple):
    """A prior, data y = A x + N(0, s² I) of it, the posterior, and log p(y)."""

    name: str
    prior: Mixture
    matrix: np.ndarray
    y: np.ndarray
    noise_std: float
    posterior: Mixture
    log_evidence: float


def condition(name, prior: Mixture, matrix, y, variance: float) -> Instance:
    """Return the instance with its posterior, each component conditioned by itself."""
    means, covariances, densities = [], [], []
    many = np.broadcast_to(prior.covariances, (len(prior.weights), *prior.covariances.shape[1:]))
    for mean, covariance in zip(prior.means, many, strict=True):
        inner = matrix @ covariance @ matrix.T + variance * np.eye(len(y))
        gain = np.linalg.solve(inner, matrix @ covariance).T
        residual = y - matrix @ mean
        means.append(mean + gain @ residual)
        covariances.append(covariance - gain @ matrix @ covariance)
        log_det = np.linalg.slogdet(2 * np.pi * inner)[1]
        densities.append(-0.5 * (residual @ np.linalg.solve(inner, residual) + log_det))
    joint = np.log(np.maximum(prior.weights, 1e-300)) + densities
    log_evidence = float(np.logaddexp.reduce(joint))
    posterior = Mixture(np.exp(joint - log_evidence), np.stack(means), np.stack(covariances))
    return Instance(name, prior, matrix, y, float(np.sqrt(variance)), posterior, log_evidence)


def read(folder: Path) -> Iterator[Instance]:
    """Yield the instance of each ``.npz`` of a folder.

    :raises ValueError: the weights in a file are not those of its posterior.
    """
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            data = {name: np.asarray(file[name], float) for name in file.files}
        prior = Mixture(*(data[f"prior_{n}"] for n in ("weights", "means", "covariances")))
        instance = condition(path.stem, prior, data["A"], data["y"], float(data["noise_variance"]))
        if not np.allclose(instance.posterior.weights, data["posterior_weights"], atol=1e-4):
            raise ValueError(f"{path}: posterior_weights are not those of the other arrays.")
        yield instance


def generate(seed: int) -> Iterator[Instance]:
    """Yield an instance of each family, made by the recipe of Cardoso et al., arXiv 2308.07983."""
    for i, (name, (d, num)) in enumerate((PAPER | ANISOTROPIC).items()):
        rng = np.random.default_rng((seed, i))
        if name in PAPER:
            grid = 8.0 * np.stack(np.meshgrid(*[np.arange(-2, 3)] * 2), -1).reshape(25, 2)
            weights = rng.chisquare(1, 25)
            prior = Mixture(weights / weights.sum(), np.tile(grid, (1, d // 2)), np.eye(d)[None])
            left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (num, d))
            scales = rng.uniform(size=num)
            matrix, variance = left @ np.diag(scales) @ right[:num], rng.uniform() * scales.max()
            variance = variance**2
        else:
            weights = rng.dirichlet(np.full(8, 5.0))
            roots = rng.normal(size=(8, d, d)) / np.sqrt(d)
            covariances = 0.7 * roots @ roots.transpose(0, 2, 1) + 0.05 * np.eye(d)
            prior = Mixture(weights, rng.normal(size=(8, d)) * 4.0, covariances)
            matrix, variance = np.linalg.qr(rng.normal(size=(d, num)))[0].T, 0.25
            prior = prior._replace(means=prior.means - 0.9 * (prior.means @ matrix.T) @ matrix)
        x = prior.sample(int(rng.integers(2**31)), 1)[0]
        y = matrix @ x + np.sqrt(variance) * rng.normal(size=num)
        yield condition(f"{name}, generated", prior, matrix, y, variance)


def score_of(energy):
    """Return the score of an energy at all times."""
    return lambda x, t: -jax.grad(energy)(x, t)
