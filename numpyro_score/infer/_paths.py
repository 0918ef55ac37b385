"""How the log ratio of a proposal is found where a site has a score and no density.

``"anchored"``: every score site has the log density φ that :class:`ScoreDistribution` defines, an
integral from a fixed anchor, and the kernel sees an ordinary target. It costs ``num_nodes``
evaluations of the network, 16 by default, and is exact for exp(φ) whatever the field. Wrong where
these nodes do not resolve the way from the anchor: compare with twice as many.

``"local"``: the log ratio of a proposal is the exact difference of all sites that have a density,
plus

    ∫₀¹ s(x + t (x' - x)) · (x' - x) dt

for each score site, from where the chain is to the proposal, by a Gauss-Lobatto rule. The rule is
symmetric, so that the way back has the inverse ratio. The chain is handed a log density built
around its position, in which score sites are 0 there: an unmodified kernel then does the rest.
Nothing is accumulated over steps: the state keeps the potential energy of the sites that have a
density, and value and score of those that have none. A step of MALA or Barker costs
``path_nodes - 1`` evaluations, a trajectory as many for each of its own steps and one more.

Wrong in two ways, of which no diagnostic tells. Where the nodes do not resolve a step, the ratio of
a way through three points and back is not 1. Weight of the left of two modes, N(0, 1) with 1/5 and
N(m, w²) with 4/5, under MALA, from its transition matrix on a grid:

    modes              acceptance  exact  trapezoid  Simpson  5 nodes  7 nodes
    m = 4, w = 1          .57      .214     .450      .213     .215     .215
    m = 3, w = 1/2        .77      .213     .537      .215     .214     .213
    m = 3, w = 1/2        .53      .213     .718      .278     .228     .214

So: the trapezoid rule for fields that are nearly linear over a step, Simpson's where the modes
have one shape or steps are small (acceptance .8), 5 or 7 nodes otherwise, and the anchored rule
where you do not know. Halve the step size, or add nodes: what matters must not change.

And where the field is no gradient: with curl the chain is reversible for no density at all. A field
with too much is refused; ``MAX_CURL`` in ``numpyro_score/distributions/_curl.py`` has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._path_checks import check_local_path
from numpyro_score.infer._score_sites import Marks, ScoreSites
from numpyro_score.infer._target import flat_value_and_grad

PotentialFn = Callable[[PyTree], Array]
DEFAULT_NODES = 3


@dataclass(frozen=True)
class AnchoredPath:
    """Score sites have a log density of their own."""

    def check_model(self, model: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """Refuse no model."""

    def evaluate(self, potential_fn: PotentialFn, z: PyTree) -> tuple[dict[str, Any], Array]:
        """Return the fields of a state at ``z``, and the flat gradient of the potential there."""
        energy, gradient = flat_value_and_grad(potential_fn, z)
        return {"potential_energy": energy}, gradient

    def enter(self, potential_fn: PotentialFn, z: PyTree) -> dict[str, Any]:
        """Return the fields of a state at ``z`` that differ from those of an anchored one."""
        return {}

    def leave(self, potential_fn: PotentialFn, state: Any, remember: bool) -> AnchoredStep:
        """Return the log density of a step that starts at ``state``."""
        return AnchoredStep(potential_fn)


@dataclass(frozen=True)
class AnchoredStep:
    """The log density that a step sees, and what the state keeps of it."""

    potential_fn: PotentialFn

    def __call__(self, z: PyTree) -> Array:
        """Return the log density at ``z``."""
        return -self.potential_fn(z)

    def settle(self, logdensity: Array, moved: Array, z: PyTree) -> dict[str, Any]:
        """Return the fields of the state after the step, which ended at ``z``."""
        return {"potential_energy": -logdensity}


@dataclass(frozen=True)
class LocalPath:
    """Score sites are integrated along each proposal."""

    num_nodes: int

    def check_model(self, model: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """Refuse a model that the rule would sample wrongly, or has no use for."""
        check_local_path(model, args, kwargs)

    def evaluate(self, potential_fn: PotentialFn, z: PyTree) -> tuple[dict[str, Any], Array]:
        """Return the fields of a state at ``z``, and the flat gradient of the potential there."""

        def energy_and_fields(z: PyTree) -> tuple[Array, dict[str, Any]]:
            energy, integral, marks = _split(potential_fn, z, None, self.num_nodes)
            return energy - integral, {"potential_energy": energy, "site_scores": marks}

        gradient, fields = jax.grad(energy_and_fields, has_aux=True)(z)
        return fields, ravel_pytree(gradient)[0]

    def enter(self, potential_fn: PotentialFn, z: PyTree) -> dict[str, Any]:
        """Return the fields of a state at ``z`` that differ from those of an anchored one."""
        return self.evaluate(potential_fn, z)[0]

    def leave(self, potential_fn: PotentialFn, state: Any, remember: bool) -> LocalStep:
        """Return the log density of a step that starts at ``state``.

        :param remember: whether it is evaluated at the proposal, once, and nowhere else.
        """
        fields = {"potential_energy": state.potential_energy, "site_scores": state.site_scores}
        end = jax.tree.map(jax.new_ref, fields) if remember else None
        return LocalStep(potential_fn, self.num_nodes, fields, end)


@dataclass(frozen=True)
class LocalStep:
    """The log density around the start of a step.

    BlackJAX returns a position and a number. Refs carry the score of the sites, which the next step
    needs, and the part of the number that is exact out of the function that it differentiates; to
    subtract the integral again would let the rounding of one step into the next.
    """

    potential_fn: PotentialFn
    num_nodes: int
    start: dict[str, Any]
    end: Any

    def __call__(self, z: PyTree) -> Array:
        """Return the log density at ``z``, where that of the score sites is 0 at the start."""
        marks = self.start["site_scores"]
        energy, integral, marks = _split(self.potential_fn, z, marks, self.num_nodes)
        if self.end is not None:
            fields = {"potential_energy": energy, "site_scores": marks}
            jax.tree.map(_write, self.end, fields)
        return integral - energy

    def settle(self, logdensity: Array, moved: Array, z: PyTree) -> dict[str, Any]:
        """Return the fields of the state after the step, which ended at ``z``."""
        if self.end is None:
            energy, _, marks = _split(self.potential_fn, z, None, self.num_nodes)
            end = {"potential_energy": energy, "site_scores": marks}
        else:
            end = jax.tree.map(lambda ref: ref[...], self.end)
        return jax.tree.map(lambda new, old: jnp.where(moved, new, old), end, self.start)


def _write(ref: Any, value: Array) -> None:
    ref[...] = jax.lax.stop_gradient(value)


def _split(
    potential_fn: PotentialFn, z: PyTree, start: Marks | None, num_nodes: int
) -> tuple[Array, Array | float, Marks]:
    """Return the potential energy without score sites, their integral, and where they are."""
    sites = ScoreSites(start, num_nodes)
    with sites:
        energy = potential_fn(z)
    return energy, sites.integral, sites.marks


def choose_path(
    path: str, path_nodes: int | None, allowed: bool, name: str
) -> AnchoredPath | LocalPath:
    """Return the rule of that name, or say why not.

    :param allowed: whether the kernel compares its position with one proposal.
    :param name: what to call the kernel.
    """
    if path not in ("anchored", "local"):
        raise ValueError(f'path must be "anchored" or "local", got {path!r}.')
    if path == "anchored":
        if path_nodes is not None:
            raise ValueError(
                'path_nodes belongs to path="local". With path="anchored" each ScoreDistribution '
                "has its own num_nodes."
            )
        return AnchoredPath()
    if not allowed:
        raise ValueError(
            f'{name} has no path="local": the rule needs a kernel that tests its position against '
            'one proposal, such as MALA, Barker, HMC or GHMC. Use path="anchored".'
        )
    path_nodes = DEFAULT_NODES if path_nodes is None else path_nodes
    check_int(path_nodes, "path_nodes", 2)
    return LocalPath(path_nodes)
