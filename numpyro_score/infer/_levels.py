"""A model at other levels: its diffusion sites with more noise, its likelihood at a temperature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.primitives import Messenger

from numpyro_score._typing import Array, PyTree
from numpyro_score.distributions import DiffusionDistribution, EnergyDistribution, Mixture
from numpyro_score.distributions._noised import between_noise
from numpyro_score.infer.model_checks import prototype_trace

#: Keyword by which a levelled model is told its level.
LEVEL = "_numpyro_score_level"


class Level(NamedTuple):
    """Where on the ladder from the posterior to what is easy to sample.

    - **noise_scale** - of latent diffusion sites, in units of the data; 0 for that of the site. A
      pair stands for the ratio of the densities at two, None for a flat density.
    - **inverse_temperature** - the power of the likelihood.
    """

    noise_scale: Any
    inverse_temperature: Any


POSTERIOR = Level(0.0, 1.0)


@dataclass(frozen=True)
class LevelledModel:
    """A model with one keyword more, its :class:`Level`; without it, the posterior itself.

    Its latent diffusion sites are energies, or scores with a line integral. In a product each
    factor has the noise of the level: the product of noised densities, not the noised product, is
    a ladder as good as any.

    - **num_nodes** - of integrals over the noise between two levels.
    """

    model: Callable[..., Any]
    num_nodes: int = 2

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model at a level."""
        level = kwargs.pop(LEVEL, POSTERIOR)
        with _AtLevel(level, self.num_nodes):
            return self.model(*args, **kwargs)


class _AtLevel(Messenger):
    """Innermost around a model, so that what a site is observed as is already known."""

    def __init__(self, level: Level, num_nodes: int) -> None:
        super().__init__()
        self.level = level
        self.num_nodes = num_nodes
        self.jacobians: set[str] = set()

    def process_message(self, msg: Any) -> None:
        """Replace the distribution of a latent site, or scale an observed one."""
        if msg["type"] != "sample" or msg["name"] in self.jacobians:
            return
        if msg["is_observed"]:
            power = self.level.inverse_temperature
            if isinstance(power, float) and power == 1.0:
                return
            msg["scale"] = power if msg["scale"] is None else msg["scale"] * power
            return
        # The term by which NumPyro's potential accounts for the bijection of a site.
        self.jacobians.add(f"_{msg['name']}_log_det")
        msg["fn"] = self._with_noise(msg["fn"])

    def _with_noise(self, fn: Any) -> Any:
        def replace(leaf: Any) -> Any:
            if not _is_diffusion(leaf):
                return leaf
            noise_scale = self.level.noise_scale
            if noise_scale is None:
                flat = lambda x, *_: 0.0 * jnp.sum(x)  # noqa: E731
                return EnergyDistribution(flat, leaf.event_shape)
            if isinstance(noise_scale, tuple):
                lower, upper = noise_scale
                return between_noise(leaf, lower, upper, self.num_nodes)
            return leaf.without_normalizer(noise_scale)

        return jax.tree.map(replace, fn, is_leaf=_is_whole)


@dataclass(frozen=True)
class LevelledPotential:
    """The potential energy of a :class:`LevelledModel`, that of the posterior where it is called.

    - **potential_fn** - of the model's arguments.
    """

    potential_fn: Callable[..., Callable[[PyTree], Array]]
    args: tuple
    kwargs: dict[str, Any]

    def at(self, level: Level) -> Callable[[PyTree], Array]:
        """Return the potential energy at a level."""
        return self.potential_fn(self.args, self.kwargs | {LEVEL: level})

    def log_ratio(self, z: PyTree, lower: Level, upper: Level) -> Array:
        """Return the log ratio of the densities at two levels, but for a number of theirs."""
        apart = Level((lower.noise_scale, upper.noise_scale), lower.inverse_temperature)
        # What the levels have in common is subtracted.
        common = Level(None, upper.inverse_temperature)
        return self.at(common)(z) - self.at(apart)(z)

    def __call__(self, z: PyTree) -> Array:
        """Return the potential energy of the posterior."""
        return self.potential_fn(self.args, self.kwargs)(z)


def _is_diffusion(node: Any) -> bool:
    return isinstance(node, DiffusionDistribution)


def _is_whole(node: Any) -> bool:
    # Components of a mixture keep their normalizers, without which their weights mean nothing.
    return _is_diffusion(node) or isinstance(node, Mixture)


def latent_diffusions(
    model: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> dict[str, DiffusionDistribution]:
    """Return the diffusion of each latent site that has one; of arrays there are only shapes."""
    trace = prototype_trace(model, args, kwargs)
    found = {}
    for name, site in trace.items():
        if site["type"] != "sample" or site["is_observed"]:
            continue
        for leaf in jax.tree.leaves(site["fn"], is_leaf=_is_whole):
            if _is_diffusion(leaf):
                found[name] = leaf
    return found
