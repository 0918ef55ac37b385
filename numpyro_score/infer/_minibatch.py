"""The log density and its gradient, estimated from some of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.sgmcmc import gradients
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import unconstrain_fn

from numpyro_score._typing import Array, PyTree
from numpyro_score.distributions._mode import minimize
from numpyro_score.infer._plates import (
    Blocks,
    ChooseRows,
    PlateSizes,
    Rows,
    draw_rows,
    full_pass,
    partition,
    subsampled_plates,
)
from numpyro_score.infer._target import Target
from numpyro_score.infer.model_checks import prototype_trace

_ROWS = "_numpyro_score_rows"
_MAP_STEPS = 300


class Estimate(NamedTuple):
    """Unbiased estimates of the log density and of its gradient, ``(d,)``, from one minibatch."""

    logdensity: Array
    score: Array


class Control(NamedTuple):
    """Control variates: a centre ``(d,)``, and what all the data say there.

    - **first_rows** - what the first minibatch says there, by which other data are noticed.
    """

    centre: Array
    estimate: Estimate
    first_rows: Estimate


class MinibatchTarget(NamedTuple):
    """The posterior of a model whose plates subsample.

    - **sizes** - of the plates that subsample.
    - **potential_fn** - of a pytree z and rows.
    - **unconstrain** - constrained values by site to unconstrained ones.
    """

    sizes: PlateSizes
    potential_fn: Callable[[PyTree, Rows], Array]
    unconstrain: Callable[[PyTree], PyTree]

    def draw(self, rng_key: Array) -> Rows:
        """Draw a minibatch."""
        return draw_rows(rng_key, self.sizes)

    def estimator(
        self, unravel: Callable[[Array], PyTree], control: Control | None
    ) -> Callable[[Array, Rows], Estimate]:
        """Return the estimate at a flat position from given rows, by BlackJAX's control variates.

        :param unravel: from a flat position to a pytree.
        """

        def estimate(z: Array, rows: Rows | None) -> Estimate:
            if rows is None:  # all data, at the centre: known, so not to be computed again
                assert control is not None
                return control.estimate
            return Estimate(*jax.value_and_grad(lambda z: -self.potential_fn(unravel(z), rows))(z))

        if control is None:
            return estimate
        # Its formula holds for any pytree, so that the log density is estimated by it too.
        return gradients.control_variates(estimate, control.centre, None)

    def from_all_data(self, unravel: Callable[[Array], PyTree], z: Array) -> Estimate:
        """Return log density and score without noise, one minibatch in memory at a time."""
        estimate = self.estimator(unravel, None)
        total = jax.tree.map(jnp.zeros_like, Estimate(z.sum(), z))
        for blocks in partition(self.sizes):

            def add(total: Estimate, starts: Rows, blocks: Blocks = blocks) -> Any:
                part = estimate(z, blocks.rows(starts))
                return jax.tree.map(lambda a, b: a + blocks.weight * b, total, part), None

            with full_pass():
                total, _ = jax.lax.scan(add, total, jax.tree.map(jnp.asarray, blocks.starts))
        return total

    def control_at(self, unravel: Callable[[Array], PyTree], centre: Array) -> Control:
        """Return control variates centred there."""
        return Control(
            centre, self.from_all_data(unravel, centre), self._first_rows(unravel, centre)
        )

    def renewed(self, unravel: Callable[[Array], PyTree], control: Control, look: Array) -> Control:
        """Return control variates of these data, made anew where those were of other ones.

        :param look: whether to look at all: it costs a gradient of one minibatch.
        """

        def differs(now: Array, then: Array) -> Array:
            # What rounding does is smaller, and to be wrong costs a pass over the data at most.
            return ~(jnp.abs(now - then).max() <= 1e-3 * jnp.abs(then).max() + 1e-6)

        def has_changed(control: Control) -> Array:
            now = self._first_rows(unravel, control.centre)
            pairs = zip(now, control.first_rows, strict=True)
            return jnp.stack([differs(*pair) for pair in pairs]).any()

        no = jnp.zeros((), bool)
        changed = jax.lax.cond(look, has_changed, lambda control: no, control)
        # A loop and no branch: under vmap a branch would go over the data at every step.
        return jax.lax.while_loop(
            lambda carry: carry[1],
            lambda carry: (self.control_at(unravel, carry[0].centre), no),
            (control, changed),
        )[0]

    def _first_rows(self, unravel: Callable[[Array], PyTree], z: Array) -> Estimate:
        rows = {name: jnp.arange(taken) for name, (_, taken) in self.sizes.items()}
        with full_pass():
            return self.estimator(unravel, None)(z, rows)

    def find_mode(self, unravel: Callable[[Array], PyTree], start: Array) -> Array:
        """Return the mode of the posterior in unconstrained space, by L-BFGS on all data."""

        @jax.custom_jvp
        def energy(z: Array) -> Array:
            return -self.from_all_data(unravel, z).logdensity

        @energy.defjvp
        def energy_jvp(primals: tuple, tangents: tuple) -> tuple:
            full = self.from_all_data(unravel, *primals)  # has the gradient already
            return -full.logdensity, -full.score @ tangents[0]

        slope = jnp.sqrt(jnp.mean(jax.grad(energy)(start) ** 2))
        return minimize(energy, start, _MAP_STEPS, jnp.maximum(1e-3, 1e-5 * slope))


def with_rows(model: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``model`` with a keyword for the rows; without it the first rows, always the same."""

    def model_of_rows(*args: Any, **kwargs: Any) -> Any:
        with ChooseRows(kwargs.pop(_ROWS, None)):
            return model(*args, **kwargs)

    return model_of_rows


def minibatch_target(
    target: Target, model: Callable[..., Any], args: tuple, kwargs: dict[str, Any] | None
) -> MinibatchTarget:
    """Return the posterior under these arguments.

    :param target: of ``model``.
    :param model: as :func:`with_rows` returns it.
    """
    kwargs = kwargs or {}

    def potential_fn(z: PyTree, rows: Rows) -> Array:
        return target.potential_fn(args, kwargs | {_ROWS: rows})(z)

    return MinibatchTarget(
        subsampled_plates(prototype_trace(model, args, kwargs)),
        potential_fn,
        lambda values: unconstrain_fn(model, args, kwargs, values),
    )


def control_of_values(target: MinibatchTarget, values: dict[str, Any], z: PyTree) -> Array:
    """Return the flat unconstrained centre that a user gave by constrained values.

    :param z: a valid position.
    """
    missing, unknown = sorted(z.keys() - values.keys()), sorted(values.keys() - z.keys())
    if missing or unknown:
        raise ValueError(
            f"control_variate must give a value to each latent site, {sorted(z)}; missing: "
            f"{missing}, unknown: {unknown}."
        )
    dtype = jnp.result_type(float)
    centre = target.unconstrain({name: jnp.asarray(values[name], dtype) for name in z})
    for name, value in centre.items():
        if jnp.shape(value) != jnp.shape(z[name]):
            raise ValueError(
                f"control_variate[{name!r}] has the shape {np.shape(values[name])}, which is not "
                "that of the site."
            )
    return ravel_pytree(centre)[0]


def checked_control(control: Any) -> Any:
    """Refuse what says neither where the centre is nor how to find it."""
    if control is None or control == "map" or isinstance(control, dict):
        return control
    raise ValueError(
        'control_variate must be None, "map", or a dict of a (constrained) value for each latent '
        f"site, got {control!r}."
    )
