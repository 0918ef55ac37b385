"""Programs that were compiled before, found again."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

import jax.numpy as jnp
from numpyro.util import find_stack_level

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._fresh_kernel import is_traceable
from numpyro_score.infer._programs import Programs, Setting
from numpyro_score.infer._run_arguments import RunArguments

_MAX_PROGRAMS = 8


class Start(NamedTuple):
    """With what one lane starts, to trace with: a key and parameters, or a state."""

    rng_key: Array
    init_params: PyTree
    state: PyTree | None


class ProgramCache:
    """The last few programs of one ``MCMC``. It is empty after a pickle."""

    def __init__(self) -> None:
        self._programs: OrderedDict[Hashable, Programs | None] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {"_programs": OrderedDict()}

    def get(
        self, setting: Setting, arguments: RunArguments, start: Start, insist: bool
    ) -> Programs:
        """Return programs whose arguments are traced where they can be, and constants elsewhere.

        :param insist: trace with a kernel that we do not know, too, and warn where it fails.
        """
        if insist or is_traceable(setting.kernel):
            programs = self._traced(setting, arguments, start, insist)
            if programs is not None:
                return programs
        key = self._key(setting, arguments, arguments.digest())
        programs = self._programs.get(key)
        if programs is None:
            programs = Programs(setting, arguments, traced=False)
            self._remember(key, programs)
        if start.state is not None:
            programs.prepare(start.state, start.rng_key, arguments)
        return programs

    def _traced(
        self, setting: Setting, arguments: RunArguments, start: Start, insist: bool
    ) -> Programs | None:
        """Return programs, or None where tracing fails, which is remembered as well."""
        key = self._key(setting, arguments, None)
        if key in self._programs:
            return self._programs[key]
        programs: Programs | None = Programs(setting, arguments, traced=True)
        assert programs is not None
        try:
            if start.state is None:
                programs.try_start(start.rng_key, start.init_params, arguments)
            else:
                programs.try_chunk(start.state, arguments)
        except Exception as error:
            # A model that looks into its arguments works where they are constants. Any other
            # mistake comes up there again, from where NumPyro would raise it.
            programs = None
            if insist:
                _warn_of_constants(error)
        self._remember(key, programs)
        return programs

    def _key(
        self, setting: Setting, arguments: RunArguments, digest: str | None
    ) -> Hashable | None:
        collected = setting.collected
        try:
            key = (
                *(id(setting.kernel), setting.num_warmup, setting.num_lanes, setting.capacity),
                *(collected.fields, collected.removed_sites, id(collected.postprocess_fn)),
                *(arguments.key(), digest, jnp.result_type(float)),
            )
            hash(key)
        except TypeError:  # an argument that cannot be compared with another
            return None
        return key

    def _remember(self, key: Hashable | None, programs: Programs | None) -> None:
        if key is None:
            return
        self._programs[key] = programs
        while len(self._programs) > _MAX_PROGRAMS:
            self._programs.popitem(last=False)


def _warn_of_constants(error: Exception) -> None:
    warnings.warn(
        "jit_model_args=True has no effect: the model or the kernel cannot be traced with its "
        f"arguments ({type(error).__name__}: {str(error).splitlines()[0]}), so that it is compiled "
        "for each data set.",
        stacklevel=find_stack_level(),
    )
