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
    site: ``y_row``.

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
        frames = sorted(site.get("cond_indep_stack", ()), key=lambda frame: frame.dim)
        plates = [frame.name for frame in frames]
        sizes.update({frame.name: frame.size for frame in frames})
        shape = shapes.get(name, getattr(site["value"], "shape", ()))
        events = [*site.get("infer", {}).get("event_dims", ()), *extra.get(name, ())]
        if not events:
            event = shape[len(plates) :]
            events = _event_names(name, event, sizes)
            sizes.update(zip(events, event, strict=False))
        if plates or events:
            dims[name] = plates + events
    return dims | {name: list(names) for name, names in given.items()}


def _event_names(site: str, shape: Shape, sizes: Mapping[str, int]) -> list[str]:
    names = _EVENT.get(len(shape), ())
    return [
        name if sizes.get(name, size) == size else f"{site}_{name}"
        for name, size in zip(names, shape, strict=False)
    ]
