"""Minibatches of data that stay on the host: on disk, in a database, or made as they are asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._plates import in_full_pass


class BatchStream:
    """A user's iterator of minibatches, for :func:`fetch_rows`: each call takes the next one.

    Make it once, outside the model. The iterator decides which rows come, so that the posterior is
    right only where each batch is a random draw of as many rows as the plate takes: shuffle, drop a
    last batch that is smaller, and repeat without end. Several chains share the stream: each takes
    its own batches. What the iterator has given is gone, so a run that is resumed in another
    process does not repeat it to the bit; a function of the rows does.

    A stream that ends must have, for each chain: one batch for each step of ``num_warmup +
    num_samples`` (``SGHMC``: ``num_integration_steps`` for each), one more for every twenty steps
    of the warm-up and of the rest, begun ones included, and four for the start. A start whose
    density is not finite is tried again, with further batches.

    :param batches: pytrees of NumPy arrays, all of the same shapes.
    :raises ValueError: at once where there is no batch. While sampling, where the stream ends or
        changes its shapes, JAX raises its own error, with this package's message in it.

    >>> import numpy as np
    >>> stream = BatchStream(np.full(3, i) for i in range(2))
    >>> stream(None), stream(None)
    (array([0, 0, 0]), array([1, 1, 1]))
    """

    def __init__(self, batches: Iterable[PyTree]) -> None:
        iterator = iter(batches)
        try:
            self.example = next(iterator)
        except StopIteration:
            raise ValueError("The iterator of minibatches holds no batch at all.") from None
        self._rest: Iterator[PyTree] = itertools.chain([self.example], iterator)
        self._count = 0

    def __call__(self, rows: np.ndarray | None) -> PyTree:
        """Return the next batch, whatever the rows."""
        self._count += 1
        try:
            return next(self._rest)
        except StopIteration:
            raise ValueError(
                f"The iterator of minibatches ended: there is no batch {self._count}. Let it "
                "repeat without end, or take fewer steps."
            ) from None


def fetch_rows(source: Callable[[np.ndarray], PyTree] | BatchStream, rows: Array) -> PyTree:
    """Return the rows of data that a plate took, from the host: data of any size, in a model.

    Call it in a model, inside a subsampled plate. The device holds one minibatch at a time; control
    variates go over the data in minibatches too. Each fetch calls Python, which costs about 0.2 ms
    beside ``source`` itself (measured on two cores), as much as five steps of a small model: take
    large minibatches. Vectorized chains fetch one after the other. Let the model close over
    ``source``, or pass it to ``MCMC.run``; a NumPy array that is passed goes to the device.

    :param source: ``source(rows)`` returns a pytree of arrays, the same for the same rows (a run is
        then as reproducible as without it); its leading axis is usually that of the rows. It gets a
        NumPy array and must not call JAX. Or a :class:`BatchStream`.
    :param rows: what ``numpyro.plate`` returns.
    :raises TypeError: for a source that cannot be called.
    :raises ValueError: for a stream under control variates, which need the rows they ask for.

    >>> import jax, numpy as np, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.infer import SGLD, fetch_rows
    >>> on_disk = np.random.default_rng(0).normal(3.0, 1.0, 1000)  # np.memmap, for example
    >>> read = on_disk.__getitem__
    >>> def model():
    ...     loc = numpyro.sample("loc", dist.Normal(0.0, 10.0))
    ...     with numpyro.plate("rows", 1000, subsample_size=100) as rows:
    ...         numpyro.sample("y", dist.Normal(loc, 1.0), obs=fetch_rows(read, rows))
    >>> mcmc = MCMC(SGLD(model, step_size=1e-4), num_warmup=50, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0))
    >>> abs(mcmc.get_samples()["loc"].mean() - on_disk.mean()).item() < 0.1
    True
    """
    if not callable(source):
        raise TypeError(
            f"fetch_rows needs a function of the rows, got {type(source).__name__}. For an "
            "iterator of minibatches, make stream = BatchStream(iterator) once, outside the model; "
            "for an array, pass array.__getitem__."
        )
    if isinstance(getattr(source, "__self__", None), jax.Array):
        raise TypeError(
            "fetch_rows reads from the host, and its source is a method of an array on the device, "
            "where MCMC.run puts the arrays that it is given. Let the model close over the NumPy "
            "array, or pass array.__getitem__ to MCMC.run in its place."
        )
    if isinstance(source, BatchStream):
        if in_full_pass():
            raise ValueError(
                "control_variate needs all the data, and an iterator cannot say which rows it "
                "gives: give fetch_rows a function of the rows, or leave control_variate out."
            )
        example = source.example
    else:
        example = source(np.arange(len(rows)))
    example = jax.tree.map(_as_device_array, example)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), example)

    def fetch(rows: Any) -> PyTree:
        batch = jax.tree.map(_as_device_array, source(np.asarray(rows)))
        _check_same(batch, example)
        return batch

    return jax.pure_callback(fetch, shapes, rows, vmap_method="sequential")


def _as_device_array(x: Any) -> np.ndarray:
    array = np.asarray(x)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))


def _check_same(batch: PyTree, example: PyTree) -> None:
    got, expected = (
        jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree) for tree in (batch, example)
    )
    if got != expected:
        raise ValueError(
            "The shapes of minibatches must not change, because the sampler is compiled for them: "
            f"expected {expected} as in the first, got {got}. Drop a last batch that is smaller."
        )
