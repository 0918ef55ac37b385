"""ArviZ's ``from_numpyro``, with what the kernel has to say of its draws."""

from __future__ import annotations

from typing import Any

import numpy as np

_GROUPS = ("posterior", "sample_stats")


def from_numpyro(mcmc: Any, **kwargs: Any) -> Any:
    """Return ``arviz.from_numpyro(mcmc, **kwargs)`` with attributes that name the kernel.

    R-hat and ESS of a biased kernel look as good as those of an exact one. So the groups
    ``posterior`` and ``sample_stats`` tell which it was, also after a file has passed through
    other hands:

    - ``kernel`` - its ``repr``; its class, if it has none of its own.
    - ``biased`` - why the draws are biased; absent for an exact kernel.
    - the statistic that tells how large the bias is, one number for each chain:
      ``mean_energy_error`` of ``ULA``, ``energy_variance`` of ``MCLMC``, ``noise_ratio`` of the
      kernels with minibatches. ``Exchange`` has none.

    :param mcmc: a :class:`numpyro.infer.MCMC` after its run, with any kernel.
    :param kwargs: ``coords``, ``dims`` and the other arguments of ``arviz.from_numpyro``.
    :return: an ``InferenceData`` (ArviZ 0.23) or a ``DataTree`` (ArviZ 1).

    >>> import jax
    >>> from numpyro.infer import MCMC
    >>> from numpyro_score.diagnostics import from_numpyro
    >>> from numpyro_score.infer import ULA
    >>> kernel = ULA(potential_fn=lambda z: 0.5 * z**2)
    >>> mcmc = MCMC(kernel, num_warmup=50, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), init_params=jax.numpy.zeros(()))
    >>> from_numpyro(mcmc)["posterior"].attrs["biased"]
    'no Metropolis test'
    """
    import arviz as az

    data = az.from_numpyro(mcmc, **kwargs)
    said = _attributes(mcmc.sampler, mcmc.last_state)
    for group in _GROUPS:
        data[group].attrs.update(said)
    return data


def _attributes(kernel: Any, state: Any) -> dict[str, Any]:
    """Return attributes that a NetCDF file can hold."""
    # That of an object would be its address.
    nameless = type(kernel).__repr__ is object.__repr__
    said: dict[str, Any] = {"kernel": type(kernel).__name__ if nameless else repr(kernel)}
    if not getattr(kernel, "bias", ""):
        return said
    said |= {"biased": kernel.bias}
    if not kernel.bias_statistic:
        return said
    statistic = np.atleast_1d(np.asarray(getattr(state, kernel.bias_statistic), float))
    return said | {kernel.bias_statistic: statistic}
