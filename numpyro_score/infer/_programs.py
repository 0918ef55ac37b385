"""Compiled parts of a run: the start of chains, a chunk of steps, the post-processing of draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import identity, nested_attrgetter

from numpyro_score._threefry import restore_keys, unroll_keys
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._blocks import batched, in_blocks
from numpyro_score.infer._capacity import rows_that_fit
from numpyro_score.infer._fresh_kernel import fresh, is_traceable
from numpyro_score.infer._keys import as_data
from numpyro_score.infer._run_arguments import RunArguments
from numpyro_score.infer._step_loop import Tally, take_steps
from numpyro_score.infer.adapter import BlackJAXKernel

#: An initialized kernel, and the arguments of its model.
Bound: TypeAlias = tuple[MCMCKernel, tuple, dict[str, Any]]

_NUMBER = jax.ShapeDtypeStruct((), jnp.int32)


class Collected(NamedTuple):
    """What is collected, by which name, and how it is post-processed.

    - **fields** - names of fields of the state; the first holds the draws.
    - **removed_sites** - sites that are not kept.
    - **postprocess_fn** - the user's own, or None for that of the kernel.
    """

    fields: tuple[str, ...]
    removed_sites: tuple[str, ...]
    postprocess_fn: Callable[[PyTree], PyTree] | None


class Setting(NamedTuple):
    """What programs depend on besides the arguments of the model.

    - **kernel** - the user's kernel; it is not changed.
    - **num_warmup** - number of warm-up steps, which kernels build into their schedule.
    - **num_lanes** - chains that one call advances; None for a single one, without an axis.
    - **collected** - what is collected.
    - **capacity** - draws that a chunk can hold; None for what fits into a few megabytes.
    """

    kernel: MCMCKernel
    num_warmup: int
    num_lanes: int | None
    collected: Collected
    capacity: int | None


class Programs:
    """Programs of one kernel, for arguments of one structure.

    They are traced with a copy of the kernel that is initialized inside the trace. Whatever a
    kernel binds at ``init``, a potential or the bounds of a support, is then an input of the
    program: a second data set of the same shape runs the same code, and gets its own answer.
    Where the model or the kernel cannot be traced so, ``traced`` is False: the arguments are
    constants, as in NumPyro, and so the program serves one data set only.

    :param setting: kernel, chains, and what is collected.
    :param arguments: of the model; others of the same :meth:`RunArguments.key` may follow.
    """

    def __init__(self, setting: Setting, arguments: RunArguments, *, traced: bool) -> None:
        self.kernel, self._num_warmup, self._num_lanes, self._collected, self._capacity = setting
        self._arguments = arguments
        self.traced = traced
        self._start = jax.jit(self._traced_start)
        self._refresh = jax.jit(self._traced_refresh)
        self._chunk = jax.jit(self._traced_chunk)
        self._postprocess = jax.jit(self._traced_fields)
        self._bound: MCMCKernel | None = None
        self.steps_per_chunk: int | None = None  # known once a chunk has run

    # -- what the run calls --------------------------------------------------------------------

    def start(self, rng_key: Array, init_params: PyTree, arguments: RunArguments) -> PyTree:
        """Return the initial state of the chains."""
        if self.traced:
            state = self._start(rng_key, init_params, arguments.arrays)
            if _finite_start(state):
                return state
        # Outside a trace, kernels look at what they start with, and say what is wrong with it.
        kernel = fresh(self.kernel)
        state = kernel.init(
            rng_key, self._num_warmup, init_params, arguments.args, arguments.kwargs
        )
        if self._bound is None:
            self._bound = kernel
        return strong(state)

    def refresh(self, state: PyTree, arguments: RunArguments) -> PyTree:
        """Return a state of other data with the potential of these, for kernels of ours."""
        if not isinstance(self.kernel, BlackJAXKernel) or self.kernel.notices_data:
            return state
        return self._refresh(state, arguments.arrays if self.traced else [])

    def prepare(self, state: PyTree, rng_key: Array, arguments: RunArguments) -> None:
        """See to it that there is a kernel to trace with, for a run that goes on from a state."""
        if not self.traced and self._bound is None:
            self.start(rng_key, self._start_of(state), arguments)

    def try_start(self, rng_key: Array, init_params: PyTree, arguments: RunArguments) -> None:
        """Trace everything but what happens after the draws; raises what tracing raises."""
        state = jax.eval_shape(self._start, rng_key, init_params, arguments.arrays)
        self.try_chunk(state, arguments)

    def try_chunk(self, state: PyTree, arguments: RunArguments) -> None:
        """Trace a chunk; raises what tracing raises."""
        rows = self._rows_of_chunk(state, arguments)
        jax.eval_shape(self._postprocess, rows, _NUMBER, arguments.arrays)

    def outputs(self, state: PyTree, arguments: RunArguments) -> dict[str, PyTree]:
        """Return shapes and dtypes of one kept draw of one chain, by field."""
        arrays = arguments.arrays if self.traced else []
        rows = self._rows_of_chunk(state, arguments)
        fields = jax.eval_shape(self._postprocess, rows, _NUMBER, arrays)
        # Axes of rows and, in a batch, of chains.
        lead = 1 if self._num_lanes is None else 2
        drop = lambda x: jax.ShapeDtypeStruct(x.shape[lead:], x.dtype)  # noqa: E731
        values = jax.tree.map(drop, fields)
        return dict(zip(self._collected.fields, values, strict=True))

    def chunk(
        self, state: PyTree, arguments: RunArguments, num_steps: int, kept: bool, thinning: int
    ) -> tuple[PyTree, tuple[PyTree, ...], Tally]:
        """Take ``num_steps`` steps, and keep the last of every ``thinning`` where ``kept``.

        :return: the state, the fields, with the draws unconstrained and an axis of ``capacity``
            rows in front, and what went wrong.
        """
        skipped = 0 if kept else num_steps
        arrays = arguments.arrays if self.traced else []
        return self._chunk(
            state, arrays, jnp.int32(num_steps), jnp.int32(skipped), jnp.int32(thinning)
        )

    def postprocess(
        self, rows: tuple[PyTree, ...], num_rows: int, arguments: RunArguments
    ) -> tuple[PyTree, ...]:
        """Return the fields, with constrained values and deterministic sites for the draws.

        Only the first ``num_rows`` rows are right. A batch of chains has its axis in front.
        """
        arrays = arguments.arrays if self.traced else []
        return self._postprocess(rows, jnp.int32(num_rows), arrays)

    def rows_per_chunk(self, state: PyTree) -> int:
        """Return how many draws a chunk can hold."""
        rows = jax.tree.leaves(self._rows_of_chunk(state, self._arguments))
        return rows[0].shape[0] if rows else self._capacity or rows_that_fit(())

    def _rows_of_chunk(self, state: PyTree, arguments: RunArguments) -> PyTree:
        arrays = arguments.arrays if self.traced else []
        return jax.eval_shape(self._chunk, state, arrays, _NUMBER, _NUMBER, _NUMBER)[1]

    # -- what is traced ------------------------------------------------------------------------

    def _traced_start(self, rng_key: Array, init_params: PyTree, arrays: list[Array]) -> PyTree:
        args, kwargs = self._arguments.rebuild(arrays)
        kernel = fresh(self.kernel)
        return strong(kernel.init(rng_key, self._num_warmup, init_params, args, kwargs))

    def _bind(self, draw: PyTree, arrays: list[Array]) -> Bound:
        """Return an initialized kernel and its arguments; of `init`, only closures are used."""
        if not self.traced:
            assert self._bound is not None, "start or prepare"
            return self._bound, self._arguments.args, self._arguments.kwargs
        args, kwargs = self._arguments.rebuild(arrays)
        kernel = fresh(self.kernel)
        rng_key = jax.random.key(0)
        if self._num_lanes is not None:
            rng_key = jax.random.split(rng_key, self._num_lanes)
        init_params = draw if getattr(kernel, "model", None) is None else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said at the start
            kernel.init(rng_key, self._num_warmup, init_params, args, kwargs)
        return kernel, args, kwargs

    def _traced_refresh(self, state: PyTree, arrays: list[Array]) -> PyTree:
        kernel, args, kwargs = self._bind(self._row(state)[0], arrays)
        assert isinstance(kernel, BlackJAXKernel), "refresh"
        return strong(kernel.refresh(state, args, kwargs))

    def _start_of(self, state: PyTree) -> PyTree:
        draw = nested_attrgetter(self._collected.fields[0])(state)
        return draw if getattr(self.kernel, "model", None) is None else None

    def _row(self, state: PyTree) -> tuple[PyTree, ...]:
        fields = self._collected.fields
        if self._num_lanes is not None and isinstance(self.kernel, BlackJAXKernel):
            state = self.kernel.by_chain(state, self._num_lanes)
        return tuple(jax.tree.map(as_data, nested_attrgetter(name)(state)) for name in fields)

    def _traced_chunk(
        self, state: PyTree, arrays: list[Array], num_steps: Array, skipped: Array, thinning: Array
    ) -> tuple[PyTree, tuple[PyTree, ...], Tally]:
        bound = self._bind(self._row(state)[0], arrays)
        row = jax.eval_shape(self._row, state)
        # Deterministic sites can be far larger than what is sampled.
        finished = (jax.eval_shape(self._finish(bound), row[0]), *row[1:])
        num_rows = self._capacity or rows_that_fit(row, finished)

        def keep(i: Array, state: PyTree, rows: PyTree) -> PyTree:
            # Each step of a group overwrites the one before; skipped ones are overwritten by all.
            slot = jnp.where(i < skipped, 0, (i - skipped) // thinning)
            return jax.tree.map(lambda rows, new: rows.at[slot].set(new), rows, self._row(state))

        rows = jax.tree.map(lambda x: jnp.zeros((num_rows, *x.shape), x.dtype), row)
        first = strong(state)
        # A kernel that we do not know may take keys apart.
        begin = unroll_keys(first) if is_traceable(self.kernel) else first
        last, rows, tally = take_steps(bound[0], bound[1:], num_steps, keep, (begin, rows))
        return restore_keys(last, first), rows, tally

    def _traced_fields(
        self, rows: tuple[PyTree, ...], num_rows: Array, arrays: list[Array]
    ) -> tuple[PyTree, ...]:
        fields = (self._traced_postprocess(rows[0], num_rows, arrays), *rows[1:])
        if self._num_lanes is None:
            return fields

        def chains_first(x: Array) -> Array:
            # Here, because NumPy takes ten times as long. What all chains share is repeated.
            if x.ndim < 2:
                return jnp.broadcast_to(x, (self._num_lanes, *x.shape))
            return jnp.swapaxes(x, 0, 1)

        return jax.tree.map(chains_first, fields)

    def _traced_postprocess(self, rows: PyTree, num_rows: Array, arrays: list[Array]) -> PyTree:
        first = jax.tree.map(lambda x: x[0], rows)
        given = self._collected.postprocess_fn is not None
        finish = self._finish(None if given else self._bind(first, arrays))
        return rows if finish is identity else in_blocks(finish, rows, num_rows)

    def _finish(self, bound: Bound | None) -> Callable[[PyTree], PyTree]:
        """Return what makes the draws of all lanes from a row; it is the user's where given."""
        fn = self._collected.postprocess_fn
        if fn is None:
            assert bound is not None, "bind"
            kernel, args, kwargs = bound
            fn = kernel.postprocess_fn(args, kwargs)
        if fn is identity and not self._collected.removed_sites:
            return fn

        def finish(draw: PyTree) -> PyTree:
            values = fn(draw)
            for site in self._collected.removed_sites:
                values = {name: value for name, value in values.items() if name != site}
            return jax.tree.map(jnp.asarray, values)

        return finish if self._num_lanes is None else batched(finish, self._num_lanes)


def strong(tree: PyTree) -> PyTree:
    """Return ``tree`` without weak types, which would compile a program a second time."""

    def convert(x: Any) -> Array:
        x = jnp.asarray(x)
        return jax.lax.convert_element_type(x, x.dtype) if getattr(x, "weak_type", False) else x

    return jax.tree.map(convert, tree)


def _finite_start(state: PyTree) -> bool:
    """Whether energies and scores are finite, those of states inside the state included."""
    told = {"potential_energy", "score", "z_grad"}
    return all(
        bool(jnp.isfinite(x).all())
        for path, x in jax.tree.leaves_with_path(state)
        if told & {getattr(entry, "name", None) for entry in path}
    )
