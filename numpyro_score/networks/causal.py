"""An autoregressive density of images by causal convolutions."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, Shape
from numpyro_score.networks.base import GaussianBase, fit_event_base, refuse_condition
from numpyro_score.networks.density import DensityNetwork
from numpyro_score.networks.images import _check_image, _with_channels

# In standardized units: a density of data on a grid would otherwise grow without bound.
_LARGEST_LOG_SCALE = 5.0
_SPREAD = 0.5


class _Mixture(NamedTuple):
    """A mixture of K normals per pixel, in standardized units.

    - **logits** - shape ``(K, rows, columns)``.
    - **mean**, **log_scale** - shape ``(K, channels, rows, columns)``.
    """

    logits: Array
    mean: Array
    log_scale: Array

    def log_prob(self, z: Array) -> Array:
        """Return the log density of each pixel of ``z``, shape ``(rows, columns)``."""
        white = (z - self.mean) * jnp.exp(-self.log_scale)
        normal = -0.5 * white**2 - self.log_scale - 0.5 * jnp.log(2 * jnp.pi)
        return jax.nn.logsumexp(jax.nn.log_softmax(self.logits, 0) + normal.sum(1), axis=0)


class _Block(eqx.Module):
    """Gated residual block of two convolutions, which may look at another stack."""

    first: eqx.nn.Conv2d
    aside: eqx.nn.Conv2d | None
    second: eqx.nn.Conv2d

    def __init__(self, width: int, reach: tuple, key: Array, *, has_aside: bool) -> None:
        keys = jax.random.split(key, 3)
        self.first = _conv(width, width, reach, keys[0])
        self.aside = _conv(width, width, _HERE, keys[1]) if has_aside else None
        self.second = _conv(width, 2 * width, reach, keys[2])

    def __call__(self, x: Array, aside: Array | None = None) -> Array:
        hidden = self.first(jax.nn.silu(x))
        if self.aside is not None and aside is not None:
            hidden = hidden + self.aside(jax.nn.silu(aside))
        change, gate = jnp.split(self.second(jax.nn.silu(hidden)), 2)
        return x + change * jax.nn.sigmoid(gate)


# Size of a kernel, and what is padded before and behind rows and columns: it sees the pixel in the
# last row, and what is above; in the last column, too, or with columns on both sides.
_HERE = ((1, 1), ((0, 0), (0, 0)))
_ROW = ((1, 3), ((0, 0), (1, 1)))
_COLUMN = ((2, 1), ((1, 0), (0, 0)))
_ABOVE = ((2, 3), ((1, 0), (1, 1)))
_LEFT = ((2, 2), ((1, 0), (1, 0)))


def _conv(in_channels: int, out_channels: int, reach: tuple, key: Array) -> eqx.nn.Conv2d:
    kernel_size, padding = reach
    return eqx.nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, key=key)


def _shift_down(x: Array) -> Array:
    return jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))


def _shift_right(x: Array) -> Array:
    return jnp.pad(x[:, :, :-1], ((0, 0), (0, 0), (1, 0)))


class CausalConvDensity(DensityNetwork):
    r"""A density of images, pixel by pixel: :math:`\log q(x) = \sum_i \log q(x_i | x_{<i})`.

    Each pixel is a mixture of normals whose weights, means and scales are functions of the pixels
    before it, row by row from the top left. Two stacks of gated residual convolutions find them:
    one sees the rows above, the other those and what is on the left, so that together they see all
    earlier pixels in reach, without a blind spot, and none other. All pixels are evaluated in one
    pass; a draw takes one pass per pixel.

    Channels of a pixel are independent within a component of its mixture. Normals, and not
    logistics, so that the tails fall as fast as those of the other networks here, and a tilt of
    linear growth leaves them proper. Mean and scale of each pixel come from :meth:`fit_base`.
    Untrained, all pixels are independent, with those means and scales.

    Sources: A. van den Oord et al., Conditional image generation with PixelCNN decoders, NeurIPS
    (2016), for the two stacks; T. Salimans et al., PixelCNN++, ICLR (2017), for shifts in place of
    masks and for mixtures; B. Uria, I. Murray & H. Larochelle, RNADE, NeurIPS (2013), for normals.

    :param image_shape: ``(rows, columns)`` or ``(channels, rows, columns)``.
    :param width: channels of the hidden layers.
    :param depth: number of residual blocks of each stack. Above, and to the left, the reach is
        ``2 * depth + 1`` pixels or more.
    :param num_components: normals K per pixel.
    :param key: random key for the weights.
    :raises ValueError: another shape, or a number out of its range.

    Called with one image it returns -log q(x), shape ``()``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import CausalConvDensity
    >>> network = CausalConvDensity((4, 4), width=4, key=jax.random.key(0))
    >>> network(jnp.zeros((4, 4))).shape
    ()
    >>> network.sample(jax.random.key(1), (3,)).shape
    (3, 4, 4)
    """

    base: GaussianBase
    inlets: tuple[eqx.nn.Conv2d, ...]
    above: tuple[_Block, ...]
    left: tuple[_Block, ...]
    head: eqx.nn.Conv2d
    image_shape: Shape = eqx.field(static=True)
    num_components: int = eqx.field(static=True)

    def __init__(
        self,
        image_shape: Shape,
        *,
        width: int = 32,
        depth: int = 3,
        num_components: int = 5,
        key: Array,
    ) -> None:
        check_int(width, "width", 1)
        check_int(depth, "depth", 1)
        check_int(num_components, "num_components", 1)
        self.image_shape = _check_image(image_shape, 0)
        self.num_components = num_components
        self.base = GaussianBase.standard(math.prod(self.image_shape))
        channels = _with_channels(self.image_shape)[0]
        keys = iter(jax.random.split(key, 4 + 2 * depth))
        # A channel of ones tells the border, where it is padded by zeros.
        self.inlets = tuple(
            _conv(channels + 1, width, reach, next(keys)) for reach in (_ABOVE, _ROW, _COLUMN)
        )
        self.above = tuple(_Block(width, _ABOVE, next(keys), has_aside=False) for _ in range(depth))
        self.left = tuple(_Block(width, _LEFT, next(keys), has_aside=True) for _ in range(depth))
        head = _conv(width, num_components * (1 + 2 * channels), _HERE, next(keys))
        self.head = eqx.tree_at(
            lambda head: (head.weight, head.bias),
            head,
            (jnp.zeros_like(head.weight), _first_bias(num_components, channels)),
        )

    def fit_base(
        self, data: Array, noise_scale: float = 0.0, condition: Array | None = None
    ) -> Self:
        """Return a copy that is standardized by the images; see ``ConvEnergy.fit_base``."""
        return fit_event_base(self, self.image_shape, data, noise_scale, condition)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Return -log q of one image, shape ``()``."""
        refuse_condition(self, condition)
        if jnp.shape(x) != self.image_shape:
            raise ValueError(
                f"CausalConvDensity takes one image of shape {self.image_shape}, got "
                f"{jnp.shape(x)}; evaluate a batch with jax.vmap(network)(x)."
            )
        z = self.base.standardization(x.ravel()).reshape(_with_channels(self.image_shape))
        log_scale = jnp.log(jax.lax.stop_gradient(self.base.scale))
        return jnp.sum(log_scale) - jnp.sum(self._mixture(z).log_prob(z))

    def sample(
        self, rng_key: Array, sample_shape: Shape = (), condition: Array | None = None
    ) -> Array:
        """Draw pixel by pixel; see :meth:`DensityNetwork.sample`."""
        refuse_condition(self, condition)
        keys = jax.random.split(rng_key, math.prod(sample_shape))
        flat = jax.vmap(self._draw)(keys).reshape(*sample_shape, -1)
        mean, scale = jax.lax.stop_gradient((self.base.mean, self.base.scale))
        return (mean + scale * flat).reshape(*sample_shape, *self.image_shape)

    def _draw(self, rng_key: Array) -> Array:
        """Return one image in standardized units."""
        _, rows, columns = shape = _with_channels(self.image_shape)
        steps = (jnp.arange(rows * columns), jax.random.split(rng_key, rows * columns))

        def draw_pixel(z: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
            at, (which_key, normal_key) = divmod(step[0], columns), jax.random.split(step[1])
            here = jax.tree.map(lambda leaf: leaf[..., *at], self._mixture(z))
            k = jax.random.categorical(which_key, here.logits)
            noise = jax.random.normal(normal_key, shape[:1], z.dtype)
            pixel = here.mean[k] + jnp.exp(here.log_scale[k]) * noise
            return z.at[:, *at].set(pixel), None

        return jax.lax.scan(draw_pixel, jnp.zeros(shape, self.base.mean.dtype), steps)[0]

    def _mixture(self, z: Array) -> _Mixture:
        """Return the mixture of each pixel, given those before it."""
        seen = jnp.concatenate([z, jnp.ones_like(z[:1])])
        inlet_above, inlet_row, inlet_column = self.inlets
        above = _shift_down(inlet_above(seen))
        left = _shift_down(inlet_row(seen)) + _shift_right(inlet_column(seen))
        for above_block, left_block in zip(self.above, self.left, strict=True):
            above = above_block(above)
            left = left_block(left, above)
        out = self.head(jax.nn.silu(left))
        logits, rest = out[: self.num_components], out[self.num_components :]
        mean, log_scale = rest.reshape(2, self.num_components, -1, *z.shape[1:])
        return _Mixture(logits, mean, _LARGEST_LOG_SCALE * jnp.tanh(log_scale / _LARGEST_LOG_SCALE))


def _first_bias(num_components: int, channels: int) -> Array:
    """Return the bias of components that lie apart, so that they learn different things.

    Together they have mean 0 and variance 1.
    """
    means = np.linspace(-_SPREAD, _SPREAD, num_components) if num_components > 1 else np.zeros(1)
    log_scale = 0.5 * np.log(1 - means.var())
    raw = _LARGEST_LOG_SCALE * np.arctanh(log_scale / _LARGEST_LOG_SCALE)
    parts = [np.zeros(num_components), np.repeat(means, channels)]
    parts.append(np.full(num_components * channels, raw))
    return jnp.asarray(np.concatenate(parts)[:, None, None], jnp.result_type(float))
