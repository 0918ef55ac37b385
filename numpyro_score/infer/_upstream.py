"""The one place that knows private names of ``numpyro.infer.MCMC``.

``tests/infer/test_mcmc.py`` compares ``PRIVATE_NAMES`` with what NumPyro has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpyro.infer

from numpyro_score._typing import PyTree

PRIVATE_NAMES = (
    "_args",
    "_cache",
    "_collection_params",
    "_default_fields",
    "_jit_model_args",
    "_kwargs",
    "_last_state",
    "_sample_field",
    "_set_collection_params",
    "_states",
    "_states_flat",
    "_warmup_state",
)


class Plan(NamedTuple):
    """Which steps of a run are taken, and which are kept.

    - **num_steps** - all of them, warm-up included.
    - **start** - the step after which the first group begins of which the last step is kept.
    - **num_kept** - draws per chain that are kept.
    - **num_warmup** - leading steps that the bar calls warm-up.
    - **thinning** - length of a group.
    """

    num_steps: int
    start: int
    num_kept: int
    num_warmup: int
    thinning: int


class HostMCMC(numpyro.infer.MCMC):
    """NumPyro's ``MCMC`` behind names of our own."""

    _load: Callable[[], dict[str, PyTree] | None] | None = None
    _loaded: dict[str, PyTree] | None = None

    def _plan(self) -> Plan:
        """Return what ``run`` or ``warmup`` asked for."""
        params = self._collection_params
        lower, upper, phase = params["lower"], params["upper"], params["phase"]
        num_warmup = {"warmup": upper, "sample": 0}.get(phase, lower)
        # As numpyro.util.fori_collect counts: what does not fill a group is left out in front.
        num_kept, rest = divmod(upper - lower, self.thinning)
        return Plan(upper, lower + rest, num_kept, num_warmup, self.thinning)

    def _plan_sampling(self) -> None:
        """Plan a run without warm-up."""
        self._set_collection_params(0, self.num_samples, self.num_samples, "sample")

    def _plan_default(self) -> None:
        """Plan a whole run, which is what the next call does unless it says otherwise."""
        self._set_collection_params()

    def _remembered_arguments(self) -> tuple[tuple, dict[str, Any]] | None:
        """Return the arguments of the run before, if there was one."""
        return (self._args, self._kwargs) if hasattr(self, "_args") else None

    def _remember_arguments(self, args: tuple, kwargs: dict[str, Any]) -> None:
        # ArviZ runs the model with these.
        self._args, self._kwargs = args, kwargs

    def _fields(self, extra_fields: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the fields to collect, that of the draws first, and the sites to leave out."""
        excluded = f"~{self._sample_field}."
        names = dict.fromkeys((self._sample_field, *self._default_fields, *extra_fields))
        collected = tuple(name for name in names if not name.startswith(excluded))
        removed = (name[len(excluded) :] for name in names if name.startswith(excluded))
        return collected, tuple(removed)

    def _keep(
        self,
        states: dict[str, PyTree] | None,
        last_state: PyTree,
        load: Callable[[], dict[str, PyTree] | None] | None = None,
    ) -> None:
        """Keep the outcome of a run: draws and fields by name, or how to load them."""
        self._states = states
        self._load = load
        self._states_flat = None
        self._last_state = last_state

    # NumPyro reads and sets this attribute; draws that lie in a store are read when asked for.
    @property
    def _states(self) -> Any:
        if self._loaded is None and self._load is not None:
            self._loaded, self._load = self._load(), None
        return self._loaded

    @_states.setter
    def _states(self, states: Any) -> None:
        self._loaded, self._load = states, None
