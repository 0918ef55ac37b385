"""Refuse the models that the local path rule would sample wrongly."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
from numpyro import handlers
from numpyro.infer import init_to_sample
from numpyro.util import find_stack_level

from numpyro_score._checks import is_concrete
from numpyro_score._typing import Array
from numpyro_score.distributions import LearnedDistribution
from numpyro_score.distributions.product import known_by_score
from numpyro_score.infer._curl import MAX_CURL, relative_curl
from numpyro_score.infer._score_sites import ScoreSites
from numpyro_score.infer.model_checks import (
    ModelError,
    dependences,
    name_dependence,
    prototype_trace,
)


def check_local_path(model: Callable[..., Any] | None, args: tuple, kwargs: dict[str, Any]) -> None:
    """Raise where ``path="local"`` has no use, or would give a wrong answer.

    :param model: the model, or None for a kernel that was given a potential.
    :raises ValueError: where there is no score site.
    :raises ModelError: where the log density of a score site changes with more than its event, and
        where the field of one has too much curl.
    """
    if model is None:
        raise ValueError(
            'path="local" needs the score sites of a model, and this kernel was given a '
            "potential_fn. Leave out path, or give a model."
        )
    seen = ScoreSites(None, 2)
    with seen:
        trace = prototype_trace(model, args, kwargs)
    if not seen.parts:
        raise ValueError(
            'path="local" is for sites known by their score, and no site of this model has a '
            "ScoreDistribution: no site needs it. Leave out path."
        )
    for site, field, labels in dependences(model, args, kwargs, trace, _score_parts):
        raise ModelError(
            f"Site {site!r} is known by its score, and {name_dependence(field, labels, trace)}. "
            'With path="local" its log density is known along its own event alone; use '
            'path="anchored".'
        )
    _check_curl(_curl_by_site(model, args, kwargs))


def warn_of_curl(model: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> None:
    """Warn where moves along segments of a score with curl leave a bias in the draws."""
    for name, value in sorted(_curl_by_site(model, args, kwargs).items()):
        if is_concrete(value) and not value <= MAX_CURL:
            warnings.warn(
                f"The score of site {name!r} has a relative curl of {float(value):.2g} (0 for a "
                "gradient), measured at draws around its anchor: the moves of particles are "
                f"reversible for no density then, with a bias that is small below {MAX_CURL}. An "
                "energy network has none.",
                stacklevel=find_stack_level(),
            )


def _score_parts(fn: Any) -> list[LearnedDistribution]:
    leaves = jax.tree.leaves(fn, is_leaf=known_by_score)
    return [leaf for leaf in leaves if known_by_score(leaf)]


def _curl_by_site(
    model: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> dict[str, Array]:
    def measure() -> dict[str, Array]:
        sites = ScoreSites(None, 2)
        seeded = handlers.substitute(handlers.seed(model, 0), substitute_fn=init_to_sample)
        with sites:
            seeded(*args, **kwargs)
        return {name: relative_curl(part) for name, part in sites.parts.items()}

    # Under chain_method="parallel" this runs inside a trace, though nothing in it is traced.
    with jax.ensure_compile_time_eval():
        return jax.jit(measure)()


def _check_curl(curl: dict[str, Array]) -> None:
    for name, value in sorted(curl.items()):
        if not is_concrete(value):
            raise ModelError(
                f'path="local" measures the curl of site {name!r} before it starts, and cannot '
                "where the arguments of the model are traced: call MCMC.run outside of jit, or use "
                'path="anchored".'
            )
        if not value <= MAX_CURL:
            raise ModelError(
                f"The score of site {name!r} has a relative curl of {float(value):.2g}, measured "
                f'at draws around its anchor; path="local" takes {MAX_CURL} at most, because it '
                "is reversible for no density where a field is no gradient. Use "
                'path="anchored", which is exact for exp(φ) all the same, or a network whose '
                "score is the gradient of an energy."
            )
