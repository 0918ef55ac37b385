"""The densities between noise and a product of diffusions: products of noised densities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from numpyro_score._typing import Array, Shape
from numpyro_score.networks import score_fn
from numpyro_score.samplers._noise_levels import AtTime, BetweenNoise
from numpyro_score.samplers._quadrature import gauss_lobatto
from numpyro_score.samplers.flow_density import last_normal
from numpyro_score.sde import SDE, time_of


@dataclass(frozen=True)
class ComposedTarget:
    """The densities on the way, each known by energies, by scores, or by both."""

    networks: list[Callable[..., Array]]
    weights: Array
    sde: SDE
    event_shape: Shape
    log_factor: Callable[[Array], Array] | None
    path_nodes: int
    num_nodes: int
    exact: bool

    def start(self, data_scales: Sequence[Array | float]) -> tuple[Array, Array]:
        """Return mean and variance of the normal that the product is at the largest noise."""
        sde, t = self.sde, jnp.asarray(self.sde.t_max, float)
        unit = sde.mean_scale(t) / sde.mean_scale(jnp.asarray(sde.t_min, float))
        precision, pull = jnp.zeros(()), jnp.zeros(self.event_shape)
        for weight, network, scale in zip(self.weights, self.networks, data_scales, strict=True):
            normal = last_normal(score_fn(network, self.event_shape), sde, self.event_shape, scale)
            part = weight * unit**2 / jnp.max(normal.variance)
            precision, pull = precision + part, pull + part * normal.mean / unit
        return pull / precision, 1 / precision

    def raised_factor(self, x: Array, power: Array) -> Array:
        """Return ``power`` times the log factor of one event, and 0 for no power at all."""
        if self.log_factor is None:
            return jnp.zeros(())
        # A factor may be -inf, and 0 times infinity is no number, nor is 0 times the derivative
        # there: at power 0 neither x nor what was made of it is heard.
        x = jnp.where(power > 0, x, jax.lax.stop_gradient(x))
        return jnp.where(power > 0, power * self.log_factor(x), 0.0)

    def allowed(self, x: Array, power: Array) -> Array:
        """Return 0 where the raised factor of one event is finite, else what it is."""
        value = self.raised_factor(x, power)
        return jnp.where(jnp.isfinite(value), 0.0, value)

    def local(self, x: Array, level: Array, power: Array) -> Callable[[Array], Array]:
        """Return the log density around ``x``, where it is 0, at a noise level.

        Its derivative is the sum of the scores.
        """
        t = time_of(self.sde, level)
        parts = [AtTime(network, t, self.sde) for network in self.networks]
        is_energy = [jax.eval_shape(part, x).shape == () for part in parts]

        def known(z: Array) -> Array:
            values = [
                -weight * part(z)
                for weight, part, energy in zip(self.weights, parts, is_energy, strict=True)
                if energy
            ]
            return sum(values, self.raised_factor(z, power))

        def field(z: Array) -> Array:
            return sum(
                weight * part(z)
                for weight, part, energy in zip(self.weights, parts, is_energy, strict=True)
                if not energy
            )

        here = known(x)
        nodes, node_weights = gauss_lobatto(self.path_nodes)

        def log_density(z: Array) -> Array:
            value = known(z) - here
            if all(is_energy):
                return value
            end = jax.lax.stop_gradient(z)
            way = end - x
            inner = jnp.asarray(nodes[:-1], x.dtype).reshape((-1,) + (1,) * x.ndim)
            scores = jax.vmap(field)(jnp.concatenate([x + inner * way, end[None]]))
            along = jnp.sum(scores * way, axis=tuple(range(1, scores.ndim)))
            integral = jnp.sum(along * jnp.asarray(node_weights, x.dtype), -1)
            return value + integral + jnp.sum(scores[-1] * (z - end))

        return log_density

    def log_ratio(self, x: Array, lower: Array, upper: Array, power: Array) -> Array:
        """Return the log ratio of the densities with less and with more noise at one place.

        :param power: by how much the power of what has no noise grows.
        """
        ratio = self.raised_factor(x, power)
        for weight, network in zip(self.weights, self.networks, strict=True):
            score = score_fn(network, self.event_shape)
            between = BetweenNoise(score, lower, upper, self.sde, self.num_nodes, self.exact)
            ratio = ratio - weight * between(x)
        return ratio
