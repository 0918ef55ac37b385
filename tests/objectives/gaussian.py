"""A correlated, shifted Gaussian, perturbations of its score, and the check of an objective."""

import jax
import jax.numpy as jnp
import numpy as np

DIM = 3
NUM_ROWS = 20_000
NOISE_SCALE = 0.5
MEAN = np.array([1.0, -2.0, 0.5])
FACTOR = np.array([[1.5, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.4, 0.3, 0.5]])
ROTATION = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
NUM_DIRECTIONS = 5
# Five standard errors: a right objective fails one comparison in a million.
STANDARD_ERRORS = 5.0


def rows(key, num_rows=NUM_ROWS):
    return MEAN + jax.random.normal(key, (num_rows, DIM)) @ FACTOR.T


def precision(noise_scale):
    return np.linalg.inv(FACTOR @ FACTOR.T + noise_scale**2 * np.eye(DIM))


def perturbation_energy(theta, x):
    """Shifts, stretches, shears and something that is not Gaussian."""
    z = x - MEAN
    parts = [
        z[0] + 0.5 * z[2],
        jnp.sum(z**2) / 2,
        z[0] * z[1],
        jnp.sum(jnp.cos(z)),
        jnp.sin(z[1] + z[2]),
    ]
    return theta @ jnp.stack(parts)


def energy_network(theta, noise_scale):
    p = precision(noise_scale)
    return lambda x: (x - MEAN) @ p @ (x - MEAN) / 2 + perturbation_energy(theta, x)


def score_network(theta, noise_scale):
    """As the energy, and a rotation that no energy has."""
    p = precision(noise_scale)
    return lambda x: (
        -p @ (x - MEAN)
        - jax.grad(perturbation_energy, 1)(theta, x)
        + theta[0] * ROTATION @ (x - MEAN)
    )


NETWORKS = {"energy": energy_network, "score": score_network}


def standard_errors(samples):
    """How many Monte Carlo standard errors the mean of each column is away from zero."""
    samples = np.asarray(samples, dtype=np.float64)
    return samples.mean(0) / (samples.std(0) / np.sqrt(len(samples)))


def assert_is_minimum(objective, kind, noise_scale):
    """Check the loss around the analytic score of the data, blurred by ``noise_scale``.

    There, its gradient must vanish, and any perturbation h of the score must cost ½ E‖h‖²: the
    Fisher divergence, neither less nor more. A factor on the loss shows only in the latter.
    """
    make = NETWORKS[kind]
    row_key, loss_key, blur_key = jax.random.split(jax.random.key(0), 3)
    x = rows(row_key)
    zero = jnp.zeros(NUM_DIRECTIONS)

    def losses(theta):
        return objective(make(theta, noise_scale), x, loss_key)

    gradients = jax.jit(jax.jacfwd(losses))(zero)
    assert np.all(np.abs(standard_errors(gradients)) < STANDARD_ERRORS), "gradient is not zero"

    blurred = x + noise_scale * jax.random.normal(blur_key, x.shape)

    @jax.jit
    def excess_and_divergence(theta):
        h = jax.vmap(score_network(theta, noise_scale))(blurred)
        if kind == "energy":
            h = -jax.vmap(jax.grad(energy_network(theta, noise_scale)))(blurred)
        h -= jax.vmap(score_network(zero, noise_scale))(blurred)
        return losses(theta) - losses(zero), 0.5 * jnp.sum(h**2, axis=1)

    for theta in 0.5 * np.concatenate([np.eye(NUM_DIRECTIONS), -np.eye(NUM_DIRECTIONS)]):
        excess, divergence = excess_and_divergence(jnp.asarray(theta))
        assert standard_errors(excess) > STANDARD_ERRORS, "a perturbation does not cost anything"
        difference = standard_errors(excess - divergence)
        assert abs(difference) < STANDARD_ERRORS, "a perturbation has the wrong cost"
