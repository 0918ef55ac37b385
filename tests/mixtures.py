"""Gaussian mixtures under a diffusion, and their posteriors given linear data, exactly."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp

from numpyro_score.distributions import DiffusionDistribution


class Mixture(NamedTuple):
    """Σ w_k N(m_k, C_k), of shapes ``(K,)``, ``(K, d)`` and ``(K, d, d)``."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def energy(self, sde):
        """Energy at all times of a diffusion."""
        variances, axes = np.linalg.eigh(np.asarray(self.covariances, float))
        aligned = np.allclose(axes, np.eye(axes.shape[-1]))
        means = np.asarray(self.means)
        log_weights = np.log(np.asarray(self.weights))

        def energy(x, t):
            alpha, sigma = sde.mean_scale(t), sde.marginal_std(t)
            spread = alpha**2 * jnp.asarray(variances, x.dtype) + sigma**2
            away = x - alpha * means
            if not aligned:
                away = jnp.einsum("kij,ki->kj", jnp.asarray(axes, x.dtype), away)
            density = -0.5 * jnp.sum(away**2 / spread + jnp.log(spread), 1)
            return -logsumexp(jnp.asarray(log_weights, x.dtype) + density)

        return energy

    def score(self, sde):
        """Score at all times of a diffusion."""
        energy = self.energy(sde)
        return lambda x, t: -jax.grad(energy)(x, t)

    def posterior(self, matrix, y, noise_std):
        """Posterior given y = A x + N(0, s² I), and the log evidence."""
        s2 = noise_std**2
        weights, means, covariances = [], [], []
        for w, m, c in zip(self.weights, self.means, self.covariances, strict=True):
            inner = matrix @ c @ matrix.T + s2 * np.eye(len(y))
            gain = c @ matrix.T @ np.linalg.inv(inner)
            means.append(m + gain @ (y - matrix @ m))
            covariances.append(c - gain @ matrix @ c)
            density = dist.MultivariateNormal(matrix @ m, inner).log_prob(y)
            weights.append(np.log(w) + float(density))
        log_evidence = np.logaddexp.reduce(weights)
        exact = np.exp(np.array(weights) - log_evidence)
        return Mixture(exact, np.stack(means), np.stack(covariances)), log_evidence

    def model(self, sde, network="energy"):
        """NumPyro model of x with this prior, and linear data of it."""
        network = getattr(self, network)(sde)
        prior = DiffusionDistribution(network, sde, self.means.shape[1:], num_steps=40)

        def model(matrix, y, noise_std):
            x = numpyro.sample("x", prior)
            numpyro.sample("y", dist.Normal(matrix @ x, noise_std).to_event(1), obs=y)

        return model

    def nearest(self, x):
        """Number of the component whose mean is nearest, for draws ``(..., d)``."""
        return np.argmin(np.linalg.norm(x[..., None, :] - self.means, axis=-1), -1)


def ncsn_toy():
    """The two modes of Song & Ermon (2019), section 3.2.2."""
    return Mixture(
        np.array([0.2, 0.8]),
        np.array([[-5.0, -5.0], [5.0, 5.0]]),
        np.stack([np.eye(2), np.eye(2)]),
    )


def noised(mixture, sde):
    """The same with the first noise of a diffusion, in units of the data."""
    noise = float(sde.noise_scale(jnp.asarray(sde.t_min)))
    size = mixture.means.shape[1]
    return mixture._replace(covariances=mixture.covariances + noise**2 * np.eye(size))


def product_of(first, second):
    """The normalized product of two mixtures, which is one of all pairs."""
    weights, means, covariances = [], [], []
    for w1, m1, c1 in zip(*first, strict=True):
        for w2, m2, c2 in zip(*second, strict=True):
            covariance = np.linalg.inv(np.linalg.inv(c1) + np.linalg.inv(c2))
            means.append(covariance @ (np.linalg.solve(c1, m1) + np.linalg.solve(c2, m2)))
            covariances.append(covariance)
            apart, spread = m1 - m2, c1 + c2
            overlap = apart @ np.linalg.solve(spread, apart) + np.linalg.slogdet(spread)[1]
            weights.append(np.log(w1 * w2) - 0.5 * overlap)
    weights = np.exp(np.array(weights) - np.logaddexp.reduce(weights))
    return Mixture(weights, np.stack(means), np.stack(covariances))
