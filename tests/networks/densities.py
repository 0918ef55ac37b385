"""What tests of density networks share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score.networks._frozen import trainable
from tests.objectives.gaussian import standard_errors

KEY = jax.random.key(0)
STANDARD_ERRORS = 5.0


def shaken(network, scale=0.3):
    """The network with weights that are far from those of its constructor."""
    params, rest = eqx.partition(network, trainable(network))
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(7)
    leaves = [x + scale * rng.normal(size=x.shape).astype(x.dtype) for x in leaves]
    return eqx.combine(jax.tree.unflatten(structure, leaves), rest)


def integral(network, shape, centre, scale, num=121, reach=9.0):
    """∫ exp(-energy) over two dimensions, by the trapezoidal rule."""
    axis = jnp.linspace(-reach, reach, num)
    grid = centre + scale * jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_q = -jax.jit(jax.vmap(network))(grid.reshape(-1, *shape))
    return float(jnp.exp(log_q).sum() * (axis[1] - axis[0]) ** 2 * scale**2)


def stein_errors(network, draws, *condition):
    """How far E s = 0 and E x sᵀ = -I are from true, for the score s of q and draws of q."""
    score = -jax.jit(jax.vmap(jax.grad(lambda x: network(x, *condition))))(draws)
    x, s = (np.asarray(a, float).reshape(len(draws), -1) for a in (draws, score))
    x = x - x.mean(0)
    products = x[:, :, None] * s[:, None] + np.eye(x.shape[1])
    columns = np.concatenate([s, products.reshape(len(x), -1)], 1)
    return np.abs(standard_errors(columns)).max()
