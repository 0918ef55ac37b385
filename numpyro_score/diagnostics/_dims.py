"""Names for the axes of a site: plates, and rows and columns of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpyro_score._typing import Shape
from numpyro_score.infer.model_checks import prototype_trace

_EVENT = {2: ("row", "col"), 3: ("channel", "row", "col")}


def name_dims(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    shapes: Mapping[str, Shape],
    given: Mapping[str, Sequence[str]],
    extra: Mapping[str, Sequence[str]],
) -> dict[str, list[str]]:
    """Return names for the axes of each site, as ``dims`` of ArviZ takes them.

    Axes of plates are named after them. An event with two axes has ``row`` and ``col``, one with
    three ``channel`` before these, which is where the networks for images have it; others are left
    to ArviZ. An axis whose name another site, or a plate, has for another size is named after its
    site: ``y_row``. An axis in front of the event that no plate fills is named as ArviZ would.

    :param shapes: of the sites, without chains and draws.
    :param given: names by site that win over these.
    :param extra: names of the axes behind those of plates, by site.
    """
    trace = prototype_trace(model, args, kwargs)
    sizes: dict[str, int] = {}
    for site, names in given.items():
        sizes.update(zip(names, shapes.get(site, ()), strict=False))
    dims: dict[str, list[str]] = {}
    for name, site in trace.items():
        if site["type"] not in ("sample", "deterministic") or name in given:
            continue
        shape = shapes.get(name, getattr(site["value"], "shape", ()))
        rank = _batch_rank(site, shape)
        batch = _batch_names(name, site, shape[:rank], rank)
        sizes.update(zip(batch, shape, strict=False))
        events = [*site.get("infer", {}).get("event_dims", ()), *extra.get(name, ())]
        if not events:
            events = _event_names(name, shape[rank:], sizes, batch)
            sizes.update(zip(events, shape[rank:], strict=False))
        # Even where there are none: what is missing here, ArviZ would guess.
        dims[name] = batch + events
    return dims | {name: list(names) for name, names in given.items()}


def _batch_rank(site: Mapping[str, Any], shape: Shape) -> int:
    """Return how many axes are in front of the event, at most; for plates count from the last."""
    if site["type"] == "sample":
        return max(0, len(shape) - site["fn"].event_dim)
    return max((-frame.dim for frame in site.get("cond_indep_stack", ())), default=0)


def _batch_names(name: str, site: Mapping[str, Any], shape: Shape, rank: int) -> list[str]:
    plates = {rank + frame.dim: frame for frame in site.get("cond_indep_stack", ())}
    return [
        plates[i].name if i in plates and plates[i].size == size else f"{name}_dim_{i}"
        for i, size in enumerate(shape)
    ]


def _event_names(
    site: str, shape: Shape, sizes: Mapping[str, int], batch: Sequence[str]
) -> list[str]:
    # All by their place, where some are: ArviZ 1 counts from 0 again, and a name would come twice.
    own = [f"{site}_dim_{i}" for i in range(len(batch), len(batch) + len(shape))]
    names = _EVENT.get(len(shape), own if any(f"{site}_dim_" in name for name in batch) else ())
    return [
        name if name not in batch and sizes.get(name, size) == size else f"{site}_{name}"
        for name, size in zip(names, shape, strict=False)
    ]
