"""What a run has left behind, whatever ran: an ``MCMC`` of NumPyro or of ours, or particles."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer import ParticleInference


def check_run(mcmc: Any) -> None:
    """Refuse what is no ``MCMC``, and one that has no draws of its posterior.

    :raises TypeError: no ``MCMC``.
    :raises RuntimeError: it has not run, or has only been warmed up.
    """
    if not hasattr(mcmc, "get_samples") or not hasattr(mcmc, "sampler"):
        raise TypeError(
            "expected a numpyro.infer.MCMC, one of numpyro_score.infer, TemperedSMC or "
            f"AnnealedLangevin; got {type(mcmc).__name__}."
        )
    if isinstance(mcmc, ParticleInference):
        mcmc.get_samples()  # says itself that it has not run
        return
    if getattr(mcmc, "last_state", None) is None:
        raise RuntimeError(f"this {type(mcmc).__name__} has not run: call its run(key, ...) first.")
    if mcmc.post_warmup_state is not None and mcmc.post_warmup_state is mcmc.last_state:
        raise RuntimeError(
            f"this {type(mcmc).__name__} has been warmed up, and has no draws of the posterior "
            "yet: call its run(key, ...)."
        )


def draws_by_site(mcmc: Any) -> dict[str, np.ndarray]:
    """Return the draws by site, of shape ``(chains, draws, *site)``, as ArviZ names them."""
    samples = jax.device_get(mcmc.get_samples(group_by_chain=True))
    if hasattr(samples, "_asdict"):
        samples = samples._asdict()
    if not isinstance(samples, dict):
        samples = {f"Param:{i}": leaf for i, leaf in enumerate(jax.tree.leaves(samples))}
    return {name: np.asarray(values) for name, values in samples.items()}


def fields_by_name(mcmc: Any) -> dict[str, PyTree]:
    """Return the fields that were collected, with the axes (chain, draw, …)."""
    return dict(mcmc.get_extra_fields(group_by_chain=True))


def last_field(mcmc: Any, name: str) -> Array | None:
    """Return a field of the last state, with an axis of chains in front; None where it has none.

    A dot leads into a field: ``"adapt_state.step_size"``.
    """
    value = getattr(mcmc, "last_state", None)
    for part in name.split("."):
        value = getattr(value, part, None)
        if value is None:
            return None
    return value
