"""A variational autoencoder: a density with latent variables, known by a bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_score._checks import as_shape, check_int
from numpyro_score._typing import Array, Shape
from numpyro_score.networks._frozen import Constants
from numpyro_score.networks.base import GaussianBase, fit_event_base, refuse_condition
from numpyro_score.networks.density import DensityNetwork

_LARGEST_LOG_SCALE = 5.0


class VAE(DensityNetwork):
    r"""A variational autoencoder: :math:`q(x) = \int N(z; 0, I)\, N(x; D(z), s^2)\, dz`.

    The integral is known by the importance-weighted bound of the encoder
    :math:`e(z|x) = N(m(x), \mathrm{diag}(t(x)^2))`,

    .. math:: \log q(x) \ge E \log \frac1K \sum_k
              \frac{N(z_k; 0, I)\, N(x; D(z_k), s^2)}{e(z_k | x)}, \quad z_k \sim e(z | x),

    which is nearer the larger K is. **The energy is minus this bound, not minus the log density**,
    with one noise :math:`z_k = m + t \varepsilon_k` that was drawn when the network was made, so
    that it is a function of x. Its exponential is an unbiased estimate of q(x): the energy lies
    above -log q(x) on average over that noise, and may lie below it at some x. ``sample`` draws
    from q itself. Training takes fresh noise.

    Base and standardization come from :meth:`fit_base`. The scales s are learned, one per entry of
    an event, relative to those of the data.

    Sources: D. P. Kingma & M. Welling, Auto-encoding variational Bayes, ICLR (2014); Y. Burda, R.
    Grosse & R. Salakhutdinov, Importance weighted autoencoders, ICLR (2016), for the bound.

    :param event_shape: shape of one event.
    :param latent_size: entries of z.
    :param width: size of the hidden layers of encoder and decoder.
    :param depth: number of their hidden layers; with 0 both are linear, and q is the density of
        probabilistic principal components (with a noise per entry: of factor analysis).
    :param num_draws: K of the energy.
    :param num_training_draws: K of the loss; with 1 it is minus the evidence lower bound. Many make
        the bound nearer, and the gradient of the encoder noisier (Rainforth et al., 2018).
    :param activation: elementwise function.
    :param key: random key for the weights and the noise of the energy.
    :raises ValueError: a number out of its range.

    Called with one event it returns minus the bound, shape ``()``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import VAE
    >>> network = VAE((4, 4), 2, width=8, key=jax.random.key(0))
    >>> network(jnp.zeros((4, 4))).shape, network.is_bound
    ((), True)
    >>> network.sample(jax.random.key(1), (3,)).shape
    (3, 4, 4)
    """

    base: GaussianBase
    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP
    log_noise_scale: Array
    noise: Constants
    event_shape: Shape = eqx.field(static=True)
    num_training_draws: int = eqx.field(static=True)

    is_bound: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: Shape,
        latent_size: int,
        *,
        width: int = 128,
        depth: int = 2,
        num_draws: int = 64,
        num_training_draws: int = 8,
        activation: Callable[[Array], Array] = jax.nn.silu,
        key: Array,
    ) -> None:
        self.event_shape = as_shape(event_shape, "event_shape")
        check_int(latent_size, "latent_size", 1)
        check_int(width, "width", 1)
        check_int(depth, "depth", 0)
        check_int(num_draws, "num_draws", 1)
        check_int(num_training_draws, "num_training_draws", 1)
        self.num_training_draws = num_training_draws
        size = math.prod(self.event_shape)
        keys = jax.random.split(key, 3)
        self.base = GaussianBase.standard(size)
        # Equinox's own last activation has no name by which a file could tell it.
        hidden = (width, depth, activation, jax.nn.identity)
        self.encoder = eqx.nn.MLP(size, 2 * latent_size, *hidden, key=keys[0])
        self.decoder = eqx.nn.MLP(latent_size, size, *hidden, key=keys[1])
        self.log_noise_scale = jnp.zeros(size)
        self.noise = Constants(jax.random.normal(keys[2], (num_draws, latent_size)))

    def fit_base(
        self, data: Array, noise_scale: float = 0.0, condition: Array | None = None
    ) -> Self:
        """Return a copy that is standardized by the data; see ``ConvEnergy.fit_base``."""
        return fit_event_base(self, self.event_shape, data, noise_scale, condition)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return minus the bound at one event, shape ``()``."""
        refuse_condition(self, condition)
        return -self._bound(x, self.noise.tree)

    def loss(self, x: Array, rng_key: Array, condition: Array | None = None) -> Array:
        """Return minus the bound with fresh noise, shape ``()``."""
        refuse_condition(self, condition)
        shape = (self.num_training_draws, self.noise.tree.shape[1])
        return -self._bound(x, jax.random.normal(rng_key, shape, self.log_noise_scale.dtype))

    def sample(
        self, rng_key: Array, sample_shape: Shape = (), condition: Array | None = None
    ) -> Array:
        """Draw from q itself; see :meth:`DensityNetwork.sample`."""
        refuse_condition(self, condition)
        latent_key, noise_key = jax.random.split(rng_key)
        num, dtype = math.prod(sample_shape), self.log_noise_scale.dtype
        latent = jax.random.normal(latent_key, (num, self.noise.tree.shape[1]), dtype)
        noise = jax.random.normal(noise_key, (num, len(self.base.mean)), dtype)
        standard = jax.vmap(self.decoder)(latent) + jnp.exp(self.log_noise_scale) * noise
        mean, scale = jax.lax.stop_gradient((self.base.mean, self.base.scale))
        return (mean + scale * standard).reshape(*sample_shape, *self.event_shape)

    def _bound(self, x: Array, noise: Array) -> Array:
        """Return the bound with noise of shape ``(K, latent_size)``."""
        if jnp.shape(x) != self.event_shape:
            raise ValueError(
                f"VAE takes one event of shape {self.event_shape}, got {jnp.shape(x)}; evaluate a "
                "batch with jax.vmap(network)(x)."
            )
        standard = self.base.standardization(x.ravel())
        mean, raw = jnp.split(self.encoder(standard), 2)
        log_scale = _LARGEST_LOG_SCALE * jnp.tanh(raw / _LARGEST_LOG_SCALE)
        latent = mean + jnp.exp(log_scale) * noise
        decoded = jax.vmap(self.decoder)(latent)
        log_likelihood = _log_normal(standard, decoded, self.log_noise_scale)
        log_prior = _log_normal(latent, 0.0, jnp.zeros_like(mean))
        log_encoder = _log_normal(latent, mean, log_scale)
        log_weights = log_likelihood + log_prior - log_encoder
        log_det = jnp.sum(jnp.log(jax.lax.stop_gradient(self.base.scale)))
        return jax.nn.logsumexp(log_weights) - jnp.log(len(noise)) - log_det


def _log_normal(x: Array, mean: Array | float, log_scale: Array) -> Array:
    """Return the log density of independent normals, summed over the last axis."""
    white = (x - mean) * jnp.exp(-log_scale)
    return jnp.sum(-0.5 * white**2 - log_scale - 0.5 * jnp.log(2 * jnp.pi), axis=-1)
