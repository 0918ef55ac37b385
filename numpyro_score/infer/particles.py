"""What the methods have in common that return many particles at once, as ``MCMC`` returns draws."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.diagnostics import print_summary
from numpyro.infer import MCMC

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._levels import POSTERIOR, LevelledModel
from numpyro_score.infer._particle_moves import Moves
from numpyro_score.infer._particle_target import ParticleTarget, particle_target
from numpyro_score.infer._path_checks import warn_of_curl
from numpyro_score.infer._paths import LocalPath
from numpyro_score.infer._prior_fit import warn_of_misfit

_TRIED = 500


class _Sampler(NamedTuple):
    """What an ``MCMC`` asks of its kernel before it runs."""

    model: Callable[..., Any]
    sample_field: str = "z"
    default_fields: tuple[str, ...] = ("z",)


class ParticleInference(MCMC):
    """Base of :class:`TemperedSMC` and :class:`AnnealedLangevin`.

    A run stands where ``numpyro.infer.MCMC`` has a chain, a particle where it has a draw, and what
    takes an ``MCMC`` takes this, such as ``arviz.from_numpyro``.
    """

    #: Why the draws are biased, whatever R-hat says; empty for a method that is not.
    bias: str = ""

    def __init__(
        self,
        model: Callable[..., Any],
        num_particles: int,
        num_chains: int,
        num_moves: int,
        path_nodes: int,
        progress_bar: bool,
    ) -> None:
        if not callable(model):
            raise TypeError(f"{type(self).__name__} needs a NumPyro model, got {model!r}.")
        check_int(num_particles, "num_particles", 2)
        check_int(num_chains, "num_chains", 1)
        check_int(num_moves, "num_moves", 1)
        check_int(path_nodes, "path_nodes", 2)
        super().__init__(
            _Sampler(model),
            num_warmup=0,
            num_samples=num_particles,
            num_chains=num_chains,
            chain_method="vectorized",
            progress_bar=progress_bar,
        )
        self.num_moves = num_moves
        self._moves = Moves(LocalPath(path_nodes))
        self._samples: PyTree = None
        self._fields: dict[str, Any] = {}

    def run(self, rng_key: Array, *args: Any, **kwargs: Any) -> None:
        """Draw samples.

        :param rng_key: a random key.
        :param args: positional arguments of the model.
        :param kwargs: its keyword arguments.
        :raises ModelError: for a model that cannot be sampled.
        :raises FloatingPointError: the prior's draws, or their likelihoods, are not finite.
        """
        target = particle_target(self.sampler.model, args, kwargs)
        warn_of_curl(LevelledModel(self.sampler.model), args, kwargs)
        z, self._fields = self._draw(rng_key, target)
        self._args, self._kwargs = args, kwargs
        self._samples = jax.jit(jax.vmap(jax.vmap(target.constrain)))(z)

    def warmup(self, *args: Any, **kwargs: Any) -> None:
        """Refused: particles have no warm-up.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError(f"{type(self).__name__} has no warm-up: call run.")

    @abstractmethod
    def _draw(self, rng_key: Array, target: ParticleTarget) -> tuple[PyTree, dict[str, Any]]:
        """Return unconstrained draws and fields, each of shape ``(chains, particles, ...)``."""

    def get_samples(self, group_by_chain: bool = False) -> dict[str, Array]:
        """Return the draws; see :meth:`numpyro.infer.MCMC.get_samples`."""
        self._check_run()
        return self._samples if group_by_chain else _without_chains(self._samples)

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, Array]:
        """Return what is known of each draw; see :meth:`numpyro.infer.MCMC.get_extra_fields`."""
        self._check_run()
        return self._fields if group_by_chain else _without_chains(self._fields)

    def print_summary(self, prob: float = 0.9, exclude_deterministic: bool = True) -> None:
        """Print a table of the draws; see :meth:`numpyro.infer.MCMC.print_summary`."""
        samples = self.get_samples(group_by_chain=True)
        if exclude_deterministic:
            sites = particle_target(self.sampler.model, self._args, self._kwargs).latent
            samples = {name: samples[name] for name in sites}
        print_summary(samples, prob=prob)

    def __repr__(self) -> str:
        model = self.sampler.model
        name = getattr(model, "__name__", type(model).__name__)
        biased = f", biased: {self.bias}" if self.bias else ""
        runs = f"{self.num_chains} runs of {self.num_samples} particles"
        return f"{type(self).__name__}({name}, {runs}{biased})"

    def _check_run(self) -> None:
        if self._samples is None:
            raise RuntimeError(f"{type(self).__name__}.run must be called first.")

    def _draw_prior(self, rng_key: Array, target: ParticleTarget) -> PyTree:
        """Return unconstrained draws from the prior, an axis of runs and one of particles first.

        Warns of a diffusion whose score is not that of its draws.
        """
        keys = jax.random.split(rng_key, (self.num_chains, self.num_samples))
        draw_together = partial(target.draw_together, num=self.num_samples)
        together_keys = jax.random.split(jax.random.fold_in(rng_key, 1), self.num_chains)
        known = jax.jit(jax.vmap(draw_together))(together_keys)
        values = jax.jit(jax.vmap(jax.vmap(target.draw)))(keys, known)
        for name, value in values.items():
            rows = np.asarray(value, float).reshape(self.num_chains * self.num_samples, -1)
            lost = np.mean(~np.isfinite(rows).all(1))
            if lost > 0:
                raise FloatingPointError(
                    f"{lost:.1%} of the draws from the prior of {name!r} are not finite"
                    f"{_when_lost(rng_key, target, name)}."
                )
        z = jax.jit(jax.vmap(jax.vmap(target.unconstrain)))(values)
        log_prior = partial(target.log_prior, level=POSTERIOR)
        # A key that no draw was made with.
        probe_key = jax.random.fold_in(rng_key, 2)
        warn_of_misfit(probe_key, log_prior, _without_chains(z), target.diffusions)
        return z


def _when_lost(rng_key: Array, target: ParticleTarget, name: str) -> str:
    """Return what a diffusion says of draws that are lost, where nothing is compiled."""
    try:
        model = handlers.trace(handlers.seed(target.model, rng_key))
        site = model.get_trace(*target.args, **target.kwargs)[name]
        site["fn"].sample(rng_key, (_TRIED,))
    except FloatingPointError as error:
        return f"; {str(error).rstrip('.')}"
    return ""


def _without_chains(fields: dict[str, Array]) -> dict[str, Array]:
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), fields)
