"""Convolutional networks for images of shape ``(rows, columns)`` or ``(channels, rows, columns)``.

On top of a Gaussian base, as the networks for vectors are.
"""

from __future__ import annotations

import itertools
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp

from numpyro_score._checks import as_shape, check_int
from numpyro_score._typing import Array, Shape
from numpyro_score.networks.base import GaussianBase, fit_event_base

_GROUP_CHANNELS = 8


class _Block(eqx.Module):
    """Residual block: twice norm, silu and a 3×3 convolution; He et al. (2016)."""

    norms: tuple[eqx.nn.GroupNorm, eqx.nn.GroupNorm]
    convolutions: tuple[eqx.nn.Conv2d, eqx.nn.Conv2d]

    def __init__(self, width: int, key: Array) -> None:
        groups = max(1, width // _GROUP_CHANNELS)
        keys = jax.random.split(key)
        self.norms = (eqx.nn.GroupNorm(groups, width), eqx.nn.GroupNorm(groups, width))
        self.convolutions = (_conv(width, width, keys[0]), _conv(width, width, keys[1]))

    def __call__(self, x: Array) -> Array:
        hidden = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            hidden = convolution(jax.nn.silu(norm(hidden)))
        return x + hidden


def _conv(in_channels: int, out_channels: int, key: Array, stride: int = 1) -> eqx.nn.Conv2d:
    return eqx.nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, key=key)


class _ImageNetwork(eqx.Module):
    """What the networks for images share: the shape, the base, and the first convolution."""

    base: GaussianBase
    inlet: eqx.nn.Conv2d
    image_shape: Shape = eqx.field(static=True)

    def fit_base(
        self, data: Array, noise_scale: float = 0.0, condition: Array | None = None
    ) -> Self:
        """Return a copy whose Gaussian base is that of the images; see ``EnergyMLP.fit_base``.

        :param data: shape ``(n, *image_shape)``.
        :param noise_scale: standard deviation of the noise that the objective adds.
        :param condition: None; these networks take none.
        """
        return fit_event_base(self, self.image_shape, data, noise_scale, condition)

    def _channels(self, x: Array) -> Array:
        """Return the first features of an image, shape ``(width, rows, columns)``."""
        if jnp.shape(x) != self.image_shape:
            raise ValueError(
                f"{type(self).__name__} takes one image of shape {self.image_shape}, got "
                f"{jnp.shape(x)}; evaluate a batch with jax.vmap(network)(x)."
            )
        standard = self.base.standardization(x.ravel())
        return self.inlet(standard.reshape(_with_channels(self.image_shape)))


def _with_channels(image_shape: Shape) -> Shape:
    return image_shape if len(image_shape) == 3 else (1, *image_shape)


def _check_image(image_shape: Shape, halvings: int) -> Shape:
    shape = as_shape(image_shape, "image_shape")
    if len(shape) not in (2, 3):
        raise ValueError(
            f"image_shape must be (rows, columns) or (channels, rows, columns), got {shape}."
        )
    if any(size % 2**halvings for size in shape[-2:]):
        raise ValueError(
            f"rows and columns must be divisible by {2**halvings}, to be halved {halvings} times; "
            f"got {shape[-2:]}. Pad the images, or take fewer levels."
        )
    return shape


class ConvEnergy(_ImageNetwork):
    r"""An energy of images: :math:`f(x) = \tfrac12 (x-\mu)^\top P (x-\mu) + \mathrm{CNN}(z)`.

    Residual blocks of 3×3 convolutions, halved in size between levels; what is left is averaged
    over places, and a linear map of it is the correction to the base. It starts at zero, and grows
    at most linearly, so that the density is proper for any weights.

    :param image_shape: ``(rows, columns)`` or ``(channels, rows, columns)``.
    :param width: channels at the first level; they double at each further one.
    :param levels: number of sizes; rows and columns are halved between them.
    :param key: random key for the weights.
    :raises ValueError: another shape, or one that cannot be halved so often.

    Called with one image it returns the energy, shape ``()``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import ConvEnergy
    >>> network = ConvEnergy((8, 8), width=8, key=jax.random.key(0))
    >>> network(jnp.ones((8, 8))).item()
    32.0
    """

    blocks: tuple[_Block, ...]
    halvings: tuple[eqx.nn.Conv2d, ...]
    head: Array

    def __init__(self, image_shape: Shape, *, width: int = 32, levels: int = 2, key: Array) -> None:
        check_int(width, "width", 1)
        check_int(levels, "levels", 1)
        self.image_shape = _check_image(image_shape, levels - 1)
        channels, rows, columns = _with_channels(self.image_shape)
        self.base = GaussianBase.standard(channels * rows * columns)
        widths = [width * 2**level for level in range(levels)]
        keys = iter(jax.random.split(key, 2 * levels))
        self.inlet = _conv(channels, width, next(keys))
        self.blocks = tuple(_Block(w, next(keys)) for w in widths)
        self.halvings = tuple(
            _conv(a, b, next(keys), stride=2) for a, b in itertools.pairwise(widths)
        )
        self.head = jnp.zeros(widths[-1])

    def __call__(self, x: Array) -> Array:
        """Return the energy of one image, shape ``()``."""
        hidden = self._channels(x)
        for block, halve in zip(self.blocks, (*self.halvings, None), strict=True):
            hidden = block(hidden)
            hidden = hidden if halve is None else halve(hidden)
        features = jnp.mean(jax.nn.silu(hidden), axis=(1, 2))
        return self.base.energy(x.ravel()) + self.head @ features


class UNet(_ImageNetwork):
    r"""A small U-Net that returns an image: a score :math:`s(x) = -P (x-\mu) + \mathrm{net}(z)`.

    Residual blocks of 3×3 convolutions at each of ``levels`` sizes on the way down and up, with
    skips between the two ways. The correction to the base starts at zero and is bounded, so that
    far from the data the field points back to the mean. For a density take it as a
    ``ScoreDistribution``, or make it an energy: ``InnerProductEnergy(UNet(...))``.

    Source: O. Ronneberger, P. Fischer, T. Brox, U-Net, MICCAI (2015).

    :param image_shape: ``(rows, columns)`` or ``(channels, rows, columns)``.
    :param width: channels at the first level; they double at each further one.
    :param levels: number of sizes; rows and columns are halved between them.
    :param key: random key for the weights.
    :raises ValueError: another shape, or one that cannot be halved so often.

    Called with one image it returns an image of the same shape.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_score.networks import UNet
    >>> network = UNet((8, 8), width=8, key=jax.random.key(0))
    >>> bool((network(jnp.ones((8, 8))) == -1).all())
    True
    """

    down: tuple[_Block, ...]
    halvings: tuple[eqx.nn.Conv2d, ...]
    doublings: tuple[eqx.nn.Conv2d, ...]
    up: tuple[_Block, ...]
    head: eqx.nn.Conv2d

    def __init__(self, image_shape: Shape, *, width: int = 32, levels: int = 2, key: Array) -> None:
        check_int(width, "width", 1)
        check_int(levels, "levels", 1)
        self.image_shape = _check_image(image_shape, levels - 1)
        channels, rows, columns = _with_channels(self.image_shape)
        self.base = GaussianBase.standard(channels * rows * columns)
        widths = [width * 2**level for level in range(levels)]
        pairs = list(itertools.pairwise(widths))
        keys = iter(jax.random.split(key, 4 * levels))
        self.inlet = _conv(channels, width, next(keys))
        self.down = tuple(_Block(w, next(keys)) for w in widths)
        self.halvings = tuple(_conv(a, b, next(keys), stride=2) for a, b in pairs)
        # Of the coarse features and of those of the way down, side by side.
        self.doublings = tuple(_conv(a + b, a, next(keys)) for a, b in pairs)
        self.up = tuple(_Block(a, next(keys)) for a, _ in pairs)
        head = _conv(width, channels, next(keys))
        self.head = jax.tree.map(jnp.zeros_like, head)

    def __call__(self, x: Array) -> Array:
        """Return an image of the shape of ``x``."""
        hidden, skips = self._channels(x), []
        for block, halve in zip(self.down, (*self.halvings, None), strict=True):
            hidden = block(hidden)
            if halve is not None:
                skips.append(hidden)
                hidden = halve(hidden)
        for block, join in zip(reversed(self.up), reversed(self.doublings), strict=True):
            coarse = jnp.repeat(jnp.repeat(hidden, 2, axis=1), 2, axis=2)
            hidden = block(join(jnp.concatenate([skips.pop(), coarse])))
        correction = self.head(jnp.tanh(hidden))
        return self.base.score(x.ravel()).reshape(x.shape) + correction.reshape(x.shape)
