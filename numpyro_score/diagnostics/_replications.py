"""Many posteriors at once: one compiled program, run on batch after batch of data sets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size
from numpyro.infer.mcmc import MCMCKernel

from numpyro_score._typing import Array, PyTree
from numpyro_score.diagnostics._prior_draws import Call
from numpyro_score.infer._programs import strong

Quantities = Callable[[dict[str, Array], dict[str, Array]], dict[str, Array]]

_MAX_THINNING = 256
_WANTED_SHARE = 0.5


class Run(NamedTuple):
    """How each posterior is drawn.

    - **kernel** - makes a kernel of a model.
    - **num_warmup**, **num_draws** - steps of warm-up; draws that are kept.
    - **values_of** - what to keep of the values of sites and of data.
    """

    kernel: Callable[..., MCMCKernel]
    num_warmup: int
    num_draws: int
    values_of: Quantities


class Posteriors:
    """Draws of the posteriors of many data sets.

    :param call: the model.
    :param run: how each is drawn.
    :param batch_size: posteriors that are drawn side by side.
    """

    def __init__(self, call: Call, run: Run, batch_size: int) -> None:
        self._call, self._run, self._batch_size = call, run, batch_size
        # Thinning is an argument, so that it may be found out with the same program.
        self._program = jax.jit(jax.vmap(self._draw, in_axes=(0, 0, None)))

    def kernel(self) -> MCMCKernel:
        """Return a kernel of the model; its arguments are data, by site.

        :raises TypeError: what the user gave makes none.
        """
        call, run = self._call, self._run

        def model(data: dict[str, Array]) -> None:
            call.given(data)

        model.__name__ = getattr(call.model, "__name__", "model")
        kernel = run.kernel(model)
        if not isinstance(kernel, MCMCKernel) or kernel.is_ensemble_kernel:
            raise TypeError(
                "kernel must make a kernel of one chain from a model, such as MALA or "
                f"lambda model: MALA(model, dense_mass=True); it made {kernel!r}."
            )
        return kernel

    def check(self, shapes: dict[str, jax.ShapeDtypeStruct]) -> None:
        """Trace the program; raises what the kernel raises for the model.

        :param shapes: of the data, by site.
        """
        size = self._batch_size
        data = {n: jax.ShapeDtypeStruct((size, *x.shape), x.dtype) for n, x in shapes.items()}
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
        jax.eval_shape(self._program, keys, data, jax.ShapeDtypeStruct((), jnp.int32))

    def draw(self, keys: Array, data: dict[str, Array], thinning: int) -> dict[str, np.ndarray]:
        """Return draws of shape ``(replications, num_draws, *event_shape)`` by name."""
        num, size = len(keys), self._batch_size
        parts = []
        for start in range(0, num, size):
            # The last batch is filled up, so that it has the shape that was compiled.
            rows = np.minimum(np.arange(start, start + size), num - 1)
            batch = jax.tree.map(lambda x, rows=rows: x[rows], (keys, data))
            parts.append(jax.tree.map(np.asarray, self._program(*batch, jnp.int32(thinning))))
            if start == 0:
                self._look_at_start(keys, data, parts[0])
        return jax.tree.map(lambda *x: np.concatenate(x)[:num], *parts)

    def find_thinning(self, keys: Array, data: dict[str, Array]) -> int:
        """Return by how much to thin, so that half of the draws or more are effective."""
        rows = np.arange(min(len(keys), self._batch_size))
        keys, data = jax.tree.map(lambda x: x[rows], (keys, data))
        thinning = 1
        while thinning < _MAX_THINNING:
            sizes = effective_sizes(self.draw(keys, data, thinning))
            share = min(np.min(size) for size in sizes.values()) / self._run.num_draws
            if not share < _WANTED_SHARE:
                break
            factor = np.clip(1.4 * _WANTED_SHARE / share, 1.5, 16)
            thinning = min(_MAX_THINNING, int(np.ceil(factor * thinning)))
        return thinning

    def _draw(self, key: Array, data: dict[str, Array], thinning: Array) -> dict[str, Array]:
        kernel, run = self.kernel(), self._run

        def steps(num: Array | int, state: PyTree) -> PyTree:
            return jax.lax.fori_loop(0, num, lambda _, s: kernel.sample(s, (data,), {}), state)

        def keep(state: PyTree, _: None) -> tuple[PyTree, PyTree]:
            state = steps(thinning, state)
            return state, getattr(state, kernel.sample_field)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one chain; here are many
            state = strong(kernel.init(key, run.num_warmup, None, (data,), {}))
        state = steps(run.num_warmup, state)
        _, z = jax.lax.scan(keep, state, None, length=run.num_draws)
        values = jax.vmap(kernel.postprocess_fn((data,), {}))(z)
        return jax.vmap(lambda value: run.values_of(value, data))(values)

    def _look_at_start(self, keys: Array, data: PyTree, draws: dict[str, np.ndarray]) -> None:
        """Start a chain that failed once more, outside of a program, to be told why."""
        finite = [np.isfinite(x).reshape(len(x), -1).all(1) for x in draws.values()]
        failed = np.flatnonzero(~np.all(finite, 0))
        if failed.size:
            row = min(failed[0], len(keys) - 1)
            one = jax.tree.map(lambda x: x[row], data)
            self.kernel().init(keys[row], self._run.num_warmup, None, (one,), {})


def have_moved(x: np.ndarray) -> np.ndarray:
    """Return whether draws ``(replications, draws, *event)`` differ, for each component."""
    moved: np.ndarray = np.any(x != x[:, :1], 1)
    return moved


def effective_sizes(draws: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return effective sizes of one posterior's draws, by name, of the shape of an event.

    Their harmonic mean over replications, because that is what widens ranks; at least 1, and 1
    where a chain did not move. A component that is constant while others move counts in full.
    """
    moved = np.any([have_moved(x).reshape(len(x), -1).any(1) for x in draws.values()], 0)
    sizes = {}
    for name, x in draws.items():
        with np.errstate(all="ignore"):
            size = effective_sample_size(np.moveaxis(x.astype(float), 1, 0)[None])
        # Draws that shun each other may come out as more than there are, or as less than none.
        size = np.where(size <= 0, np.inf, size)
        constant = np.where(moved, x.shape[1], 1.0).reshape(-1, *[1] * (size.ndim - 1))
        size = np.clip(np.where(np.isnan(size), constant, size), 1.0, x.shape[1])
        sizes[name] = 1 / np.mean(1 / size, 0)
    return sizes
