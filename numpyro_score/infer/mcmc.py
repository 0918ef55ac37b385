"""``numpyro.infer.MCMC`` in compiled chunks."""

from __future__ import annotations

import os
import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import find_stack_level, is_prng_key, nested_attrgetter

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._device_draws import DeviceDraws, on_accelerator
from numpyro_score.infer._draws import Draws
from numpyro_score.infer._fingerprint import fingerprint
from numpyro_score.infer._netcdf import check_netcdf, variables_of
from numpyro_score.infer._program_cache import ProgramCache, Start
from numpyro_score.infer._programs import Collected, Programs, Setting, strong
from numpyro_score.infer._progress import Bar, Pace
from numpyro_score.infer._resume import other_data, warn_of_warmup, with_key
from numpyro_score.infer._run_arguments import RunArguments, check_chains, under_transform
from numpyro_score.infer._sampling import Sampling, part_states, stack_states
from numpyro_score.infer._store import Store
from numpyro_score.infer._upstream import HostMCMC, Plan
from numpyro_score.infer.checkpoint import load_draws


class MCMC(HostMCMC):
    """NumPyro's ``MCMC``, with the same constructor and methods, in compiled chunks.

    It gives the draws of :class:`numpyro.infer.MCMC` for the same key, with any of its kernels and
    any of ours, and is accepted wherever that is. What differs is how it runs:

    - Many steps run in one compiled call, and the bar moves in between: several times a second.
    - It compiles once. Another number of draws, another key, and other data of the same shapes run
      the same code; whatever array is an argument of the model is an argument of the program.
      A model that looks into its arguments (``int(y.max())``), and a kernel that we do not know,
      are compiled for each data set, as NumPyro does, and so is a NumPy array whose differences
      float32 does not hold, such as dates in seconds; draws are right in each case. Arguments that
      are no arrays are taken for the same where they are equal; a model, a function or a class that
      was changed in place is not noticed.
    - Draws are post-processed if they are kept: not in warm-up, and not where thinning drops them.
    - On a CPU it draws threefry's numbers, JAX's default, by a form of the same cipher that takes a
      fraction of the time. Where the model is cheap a step takes half as long, or less.
    - An interrupt keeps the draws so far.

    The kernel is read when it first runs, and is left as it was. ``chain_method="parallel"`` or a
    callable, with several chains, run NumPyro's own loop.

    :param sampler: a kernel of NumPyro or of ours.
    :param num_warmup: steps of warm-up.
    :param num_samples: steps after it.
    :param num_chains: number of chains.
    :param thinning: keep every so-manieth step.
    :param postprocess_fn: a map of one draw, instead of the kernel's.
    :param chain_method: ``"vectorized"``, ``"sequential"``, ``"parallel"`` or a callable. Chains
        that are drawn in sequence take turns, a chunk each.
    :param progress_bar: whether to show one.
    :param progress_rate: steps between updates of the bar; the same as ``chunk_size``.
    :param jit_model_args: arguments are traced wherever they can be; True asks for it with kernels
        that we do not know, and warns where it cannot be.
    :param chunk_size: steps per compiled call; None for about a third of a second.
    :param checkpoint: a directory to write draws to, chunk by chunk; None to keep them in memory.
        A run that was killed goes on where it was when it is started again, and gives the draws
        that it would have given; :meth:`get_samples` then reads them. A file is written every five
        seconds, later on after each hundredth of the time, and, with ``chunk_size``, for each
        chunk. See :func:`open_checkpoint`. ``warmup`` has the directory ``warmup`` inside.
    :raises ValueError: for arguments that no run can have; in ``run``, for the checkpoint of
        another run, which is a :class:`CheckpointError`.

    >>> import jax, numpyro, numpyro.distributions as dist
    >>> from numpyro_score.infer import MALA, MCMC
    >>> def model(y):
    ...     loc = numpyro.sample("loc", dist.Normal(0.0, 10.0))
    ...     numpyro.sample("y", dist.Normal(loc, 1.0), obs=y)
    >>> mcmc = MCMC(MALA(model), num_warmup=200, num_samples=300, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), 3.0)
    >>> mcmc.get_samples()["loc"].shape
    (300,)
    """

    def __init__(
        self,
        sampler: MCMCKernel,
        *,
        num_warmup: int,
        num_samples: int,
        num_chains: int = 1,
        thinning: int = 1,
        postprocess_fn: Any = None,
        chain_method: Any = "parallel",
        progress_bar: bool = True,
        progress_rate: int | None = None,
        jit_model_args: bool = False,
        chunk_size: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        for value, name in ((chunk_size, "chunk_size"), (progress_rate, "progress_rate")):
            if value is not None:
                check_int(value, name, 1)
        super().__init__(
            sampler,
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_chains,
            thinning=thinning,
            postprocess_fn=postprocess_fn,
            chain_method=chain_method,
            progress_bar=progress_bar,
            progress_rate=progress_rate,
            jit_model_args=jit_model_args,
        )
        self.chunk_size = chunk_size if chunk_size is not None else progress_rate
        self.checkpoint = None if checkpoint is None else os.fspath(checkpoint)
        self._programs = ProgramCache()
        self._interrupted = False
        if self.checkpoint is not None:
            check_netcdf()
            if self._own_loop_of_numpyro():
                raise ValueError(
                    f"checkpoint needs chain_method='vectorized' or 'sequential', got "
                    f"{chain_method!r} with {num_chains} chains, which runs NumPyro's own loop."
                )

    def warmup(self, rng_key: Array, *args: Any, **options: Any) -> None:
        """Run the warm-up alone; see :meth:`numpyro.infer.MCMC.warmup`.

        :attr:`post_warmup_state` is then where :meth:`run` goes on; after an interrupt it is None.
        """
        super().warmup(rng_key, *args, **options)
        if self._interrupted:
            self.post_warmup_state = None

    def run(
        self,
        rng_key: Array,
        *args: Any,
        extra_fields: tuple[str, ...] = (),
        init_params: PyTree = None,
        **kwargs: Any,
    ) -> None:
        """Draw samples; see :meth:`numpyro.infer.MCMC.run`.

        After a keyboard interrupt the draws so far are there, and a warning says how many.

        :param rng_key: one key, or one for each chain.
        :param args: positional arguments of the model.
        :param extra_fields: fields of the state to collect, such as ``"potential_energy"`` or
            ``"adapt_state.step_size"``; ``"~z.name"`` leaves out a site.
        :param init_params: unconstrained starts, with an axis of chains if there are several.
        :param kwargs: keyword arguments of the model.
        """
        try:
            traced = under_transform(rng_key, init_params, args, kwargs, self.post_warmup_state)
            if traced or self._own_loop_of_numpyro():
                self._warn_of_own_loop(traced)
                super().run(
                    rng_key, *args, extra_fields=extra_fields, init_params=init_params, **kwargs
                )
                return
            self._run_chunks(rng_key, RunArguments(args, kwargs), extra_fields, init_params)
        finally:
            # After an error in `warmup`, too: the next `run` is a whole run.
            self._plan_default()

    # -- a run in chunks -----------------------------------------------------------------------

    def _run_chunks(
        self,
        rng_key: Array,
        arguments: RunArguments,
        extra_fields: tuple[str, ...],
        init_params: PyTree,
    ) -> None:
        self._interrupted = False
        before = self._remembered_arguments()
        self._remember_arguments(arguments.args, arguments.kwargs)
        if not isinstance(extra_fields, (tuple, list)):
            raise TypeError(f"extra_fields must be a tuple of names, got {extra_fields!r}.")
        init_params = jax.tree.map(jnp.asarray, init_params)
        check_chains(init_params, self.num_chains)
        keys = self._keys(rng_key)
        if self.post_warmup_state is not None:
            warn_of_warmup(self.post_warmup_state, self.num_warmup)
            self._plan_sampling()
        plan = self._plan()
        names, removed = self._fields(tuple(extra_fields))
        collected = Collected(names, removed, self.postprocess_fn)
        programs, states = self._start(keys, init_params, arguments, collected)
        model_arguments = (arguments.args, arguments.kwargs)
        if self.post_warmup_state is not None and other_data(before, model_arguments):
            states = [programs.refresh(state, arguments) for state in states]
        sink: Draws | DeviceDraws | Store
        if self.checkpoint is not None:
            sink = self._open_store(plan, collected, keys, arguments, programs, states)
        elif on_accelerator(states):
            sink = DeviceDraws(states)
        else:
            sink = Draws(plan.num_kept, states)
        sampling = Sampling(
            programs,
            arguments,
            plan,
            names,
            sink,
            num_chains=self.num_chains,
            batched=self._batched,
        )
        with Bar(self.sampler, plan, sampling.position.steps, self.progress_bar) as bar:
            sampling.advance(Pace(self.chunk_size, programs.steps_per_chunk), bar)
        self._interrupted = sampling.interrupted
        last_state = stack_states(sampling.states, self.num_chains, self._batched)
        like = {name: nested_attrgetter(name)(last_state) for name in names[1:]}
        if not isinstance(sink, Store):
            self._keep(sink.take(like), last_state)
        else:
            sink.flush()
            outputs = programs.outputs(states[0], arguments)
            load = partial(load_draws, sink.directory, sink.variables, outputs, plan, like)
            self._keep(None, last_state, load)
        sampling.warn(last_state)

    def _open_store(
        self,
        plan: Plan,
        collected: Collected,
        keys: Array,
        arguments: RunArguments,
        programs: Programs,
        states: list[PyTree],
    ) -> Store:
        assert self.checkpoint is not None
        outputs = programs.outputs(states[0], arguments)
        variables = variables_of(outputs, collected.fields[0])
        run = fingerprint(self, plan, keys, arguments, variables)
        directory = self.checkpoint
        if plan.num_warmup == plan.num_steps:
            directory = os.path.join(directory, "warmup")
        every_chunk = self.chunk_size is not None
        return Store(directory, run, variables, states, every_chunk=every_chunk)

    @property
    def _batched(self) -> bool:
        return self.num_chains > 1 and self.chain_method == "vectorized"

    def _keys(self, rng_key: Array) -> Array:
        """Return one key, or the keys of all chains."""
        if self.num_chains == 1:
            return rng_key
        if is_prng_key(rng_key):
            return jax.random.split(rng_key, self.num_chains)
        if len(rng_key) != self.num_chains:
            raise ValueError(
                f"rng_key must be one key, or one for each of {self.num_chains} chains; got "
                f"{len(rng_key)}."
            )
        return rng_key

    def _start(
        self, keys: Array, init_params: PyTree, arguments: RunArguments, collected: Collected
    ) -> tuple[Programs, list[PyTree]]:
        num_lanes = self.num_chains if self._batched else None
        capacity = None if self.chunk_size is None else max(1, self.chunk_size // self.thinning)
        setting = Setting(self.sampler, self.num_warmup, num_lanes, collected, capacity)
        lanes = self._part((keys, init_params))
        states = None
        if self.post_warmup_state is not None:
            key = keys[0] if self.sampler.is_ensemble_kernel else keys
            states = self._part(strong(with_key(self.post_warmup_state, key)))
        start = Start(lanes[0][0], lanes[0][1], None if states is None else states[0])
        programs = self._programs.get(setting, arguments, start, self._jit_model_args)
        if states is None:
            states = [programs.start(key, params, arguments) for key, params in lanes]
        return programs, states

    def _part(self, tree: PyTree) -> list[PyTree]:
        return part_states(tree, self.num_chains, self._batched)

    def _own_loop_of_numpyro(self) -> bool:
        if self.num_chains == 1:
            return False
        return self.chain_method not in ("sequential", "vectorized")

    def _warn_of_own_loop(self, traced: bool) -> None:
        if not traced:
            warnings.warn(
                f"chain_method={self.chain_method!r} with {self.num_chains} chains runs NumPyro's "
                "own loop: it compiles again for each run. For chunks take 'vectorized' or "
                "'sequential'.",
                stacklevel=find_stack_level(),
            )
