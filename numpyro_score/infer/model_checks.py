"""Refuse the models that a chain would sample with perfect diagnostics and a wrong answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer import init_to_sample
from numpyro.infer.gibbs import GIBBS_SITES_KWARG

from numpyro_score._typing import Array, PyTree
from numpyro_score.distributions import LearnedDistribution
from numpyro_score.distributions._parts import unnormalized_parts
from numpyro_score.infer._control_flow import UnhidePlates
from numpyro_score.infer._dependence import output_labels

#: Called with a site, the name of a field, what the field depends on, and the trace.
OnDependence: TypeAlias = Callable[[str, str, frozenset[str], dict[str, Any]], None]

_MIXTURES = (dist.MixtureSameFamily, dist.MixtureGeneral)
_FIELD_NAMES = {
    "_arrays": "the parameters of its network",
    "condition": "its condition",
    "_support": "its support",
    "anchor": "its anchor",
    "_members": "a factor or component of it",
    "weights": "the weights of its factors or components",
    "context": "its mask or scale",
    "log_prob": "a value that its network closes over",
}


class ModelError(ValueError):
    """The model cannot be sampled as it stands; the message names the site and the way out."""


class DoublyIntractableError(ModelError):
    """An unknown normalizer depends on what is to be inferred, so it does not cancel."""


def check_model(model: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Raise where MCMC on this model would fail, or silently give a wrong posterior.

    The kernels of this package call it when they are initialized. Call it yourself before you
    sample a model with learned distributions by another kernel, such as NUTS.

    :param model: a NumPyro model.
    :param args: the model's arguments, as they will be passed to ``MCMC.run``.
    :param kwargs: its keyword arguments.
    :raises DoublyIntractableError: where the network (or what it closes over), condition, support,
        mask or scale of an unnormalized distribution depends on a latent site or a learnable
        parameter, or where an unnormalized distribution is the component of a mixture. Its
        normalizer Z is then a function of what is inferred; Murray et al. (2006), "MCMC for
        doubly-intractable distributions".
    :raises ModelError: where there is no continuous latent site, where a latent site is
        discrete, or where a plate subsamples its data, also inside NumPyro's ``scan`` or ``cond``.

    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro_score.distributions import EnergyDistribution
    >>> from numpyro_score.infer import check_model
    >>> def model():
    ...     scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    ...     energy = lambda x, c: 0.5 * jnp.sum((x / c) ** 2)
    ...     numpyro.sample("x", EnergyDistribution(energy, (2,), condition=scale[None]))
    >>> check_model(model)
    Traceback (most recent call last):
        ...
    numpyro_score.infer.model_checks.DoublyIntractableError: Site 'x' ...
    """
    check_structure(model, args, kwargs, refuse_subsampling)


def check_structure(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    check_plates: Callable[[dict[str, Any]], None],
    on_dependence: OnDependence | None = None,
) -> None:
    """Check ``model`` as :func:`check_model` does, but for what a kernel sees to itself.

    :param check_plates: called with the trace; refuses plates.
    :param on_dependence: called for all that normalizers depend on; None to refuse any of it.
    """
    with UnhidePlates(_refuse_hidden):
        trace = prototype_trace(model, args, kwargs)
    check_plates(trace)
    check_latent_sites(trace)
    if GIBBS_SITES_KWARG in kwargs:
        # A block of Gibbs sees its sibling sites as data; Z depends on them all the same.
        kwargs = {name: value for name, value in kwargs.items() if name != GIBBS_SITES_KWARG}
        trace = prototype_trace(model, args, kwargs)
    if any(unnormalized_parts(site["fn"]) for site in _sample_sites(trace)):
        _check_normalizers(model, args, kwargs, trace, on_dependence or refuse_dependence)


def prototype_trace(model: Callable[..., Any], args: tuple, kwargs: dict) -> dict[str, Any]:
    """Trace ``model`` for its structure: sites, distributions and shapes, but no numbers.

    Nothing is computed. The ``value`` of each sample and param site is its shape and dtype.
    """
    sites: dict[str, Any] = {}

    def run() -> dict[str, PyTree]:
        seeded = handlers.substitute(handlers.seed(model, 0), substitute_fn=init_to_sample)
        sites.update(handlers.trace(seeded).get_trace(*args, **kwargs))
        return {k: v["value"] for k, v in sites.items() if v["type"] in ("sample", "param")}

    shapes = jax.eval_shape(run)
    return {name: site | {"value": shapes.get(name)} for name, site in sites.items()}


def refuse_subsampling(trace: dict[str, Any]) -> None:
    """Refuse a trace with a plate that takes some of its rows."""
    for name, site in trace.items():
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
            size, subsample_size = site["args"]
            raise ModelError(
                f"Plate {name!r} subsamples {subsample_size} of {size} rows. This kernel would "
                "condition on one fixed subset; remove subsample_size, or use a kernel that draws "
                "a fresh minibatch at every step: SGLD, SGHMC or SGNHT."
            )


def _refuse_hidden(name: str, size: int, subsample_size: int | None) -> None:
    if subsample_size not in (None, size):
        raise ModelError(
            f"Plate {name!r} subsamples {subsample_size} of {size} rows inside scan or cond, which "
            "hide it from the kernel: it would keep one fixed subset. Remove subsample_size; or, "
            "for SGLD, SGHMC or SGNHT, take the rows before scan or cond, `with numpyro.plate("
            f"{name!r}, {size}, subsample_size={subsample_size}) as rows: pass`, and put a plate "
            f"of these {subsample_size} rows inside, under handlers.scale(scale={size} / "
            f"{subsample_size})."
        )


def check_latent_sites(trace: dict[str, Any]) -> None:
    """Refuse a trace without continuous latent sites, or with discrete ones."""
    latent = [site for site in _sample_sites(trace) if not site["is_observed"]]
    discrete = [site["name"] for site in latent if site["fn"].support.is_discrete]
    if discrete:
        raise ModelError(
            f"Latent sites {discrete} are discrete, and a Langevin kernel needs a gradient. "
            "Marginalize them in the model (numpyro's MixtureSameFamily, for example), or sample "
            "them in a block of their own: Gibbs([(DiscreteGibbs(model), "
            f"{discrete}), (kernel, None)])."
        )
    if not latent:
        raise ModelError(
            "The model has no continuous latent site, so there is nothing to sample. Every "
            "sample site is observed; check the `obs` arguments and handlers.condition."
        )


def _sample_sites(trace: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (site for site in trace.values() if site["type"] == "sample")


def _context(fn: Any) -> list[Any]:
    """Return the arrays around the learned distributions of ``fn`` that scale or mask them.

    What a bijector does to an event leaves Z alone.
    """
    stop = (LearnedDistribution, dist.TransformedDistribution)
    leaves = jax.tree.leaves(fn, is_leaf=lambda node: isinstance(node, stop))
    return [leaf for leaf in leaves if not isinstance(leaf, stop)]


def _check_normalizers(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict,
    trace: dict[str, Any],
    on_dependence: OnDependence,
) -> None:
    for site in _sample_sites(trace):
        if isinstance(site["fn"], _MIXTURES) and unnormalized_parts(site["fn"]):
            raise DoublyIntractableError(
                f"Site {site['name']!r} mixes components of which one is unnormalized: the weight "
                "of each component depends on its unknown normalizer. Give log_normalizer to the "
                "learned components."
            )

    for site_name, field, labels in dependences(model, args, kwargs, trace, unnormalized_parts):
        on_dependence(site_name, field, labels, trace)


def dependences(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict,
    trace: dict[str, Any],
    parts: Callable[[Any], list[LearnedDistribution]],
) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield what learned distributions depend on, but for the event itself.

    :param trace: that of :func:`prototype_trace`.
    :param parts: which learned distributions to look at, of those in a site's distribution.
    :return: triples of a site, the name of a field of it, and the latent sites and parameters
        that the field depends on.
    """
    free = {
        name: site["value"]
        for name, site in trace.items()
        if site["type"] == "param" or (site["type"] == "sample" and not site["is_observed"])
    }

    def what_normalizers_see(free: dict[str, PyTree]) -> dict[str, dict[str, PyTree]]:
        substituted = handlers.substitute(handlers.seed(model, 0), data=free)
        sites = _sample_sites(handlers.trace(substituted).get_trace(*args, **kwargs))
        return {s["name"]: _fields(s, parts(s["fn"])) for s in sites if parts(s["fn"])}

    jaxpr, shapes = jax.make_jaxpr(what_normalizers_see, return_shape=True)(free)
    inputs = [
        frozenset([name]) for name, value in sorted(free.items()) for _ in jax.tree.leaves(value)
    ]
    outputs = iter(output_labels(jaxpr, inputs))
    for site_name, fields in sorted(shapes.items()):
        for field, tree in sorted(fields.items()):
            labels = frozenset().union(*(next(outputs) for _ in jax.tree.leaves(tree)))
            if labels:
                yield site_name, field, labels


def _fields(site: dict[str, Any], parts: list[LearnedDistribution]) -> dict[str, list[Array]]:
    """Return all that the normalizers of ``parts`` of a site depend on, by the field it is in."""
    fields: dict[str, PyTree] = {
        name: [getattr(part, name, None) for part in parts]
        for name in ("_arrays", "condition", "_support", "anchor", "_members", "weights")
    }
    fields["context"] = [_context(site["fn"]), site["scale"]]
    # At an event that depends on nothing, to find what no field holds. The last to be looked at.
    fields["log_prob"] = [
        part.log_prob(jnp.zeros(part.batch_shape + part.event_shape)) for part in parts
    ]
    return {name: [jnp.asarray(x) for x in jax.tree.leaves(v)] for name, v in fields.items()}


def name_dependence(field: str, labels: frozenset[str], trace: dict[str, Any]) -> str:
    """Say in words that a field depends on latent sites or parameters."""
    latent = [repr(n) for n in sorted(labels) if trace[n]["type"] == "sample"]
    params = [repr(n) for n in sorted(labels) if trace[n]["type"] == "param"]
    sources = [f"the latent site {n}" for n in latent] + [f"the parameter {n}" for n in params]
    return f"{_FIELD_NAMES[field]} depends on {' and '.join(sources)}"


def refuse_dependence(site: str, field: str, labels: frozenset[str], trace: dict[str, Any]) -> None:
    """Refuse a normalizer that depends on what is inferred."""
    way_out = ""
    sampled = all(trace[name]["type"] == "sample" for name in labels)
    if trace[site]["is_observed"] and sampled and field not in ("context", "_support"):
        way_out = (
            " Where data can be drawn at given values, numpyro_score.infer.Exchange samples such a "
            "model as it stands."
        )
    raise DoublyIntractableError(
        f"Site {site!r} has an unnormalized density and {name_dependence(field, labels, trace)}: "
        "its normalizer Z changes with what is inferred and does not cancel (the model is doubly "
        "intractable). Without Z the posterior would be wrong, with perfect diagnostics. Pass "
        "log_normalizer= as a function of the same values, make them constants, or use a "
        "normalized distribution." + way_out
    )
