"""Sequential Monte Carlo from the prior to the posterior, with the evidence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc import adaptive_tempered, resampling
from numpyro.util import find_stack_level
from tqdm import tqdm

from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._arguments import check_probability
from numpyro_score.infer._levels import POSTERIOR
from numpyro_score.infer._particle_moves import Tuning
from numpyro_score.infer._particle_target import IMPOSSIBLE, ParticleTarget
from numpyro_score.infer.particles import ParticleInference

_MAX_STAGES = 1_000
_ROUNDING = 1e-6
_BAR = "{l_bar}{bar}| λ = {n:.3f} [{elapsed}, {postfix}]"


class Stages(NamedTuple):
    """What happened on the way, arrays of shape ``(chains, stages)``.

    - **inverse_temperature** - power of the likelihood after each stage, 1 in the end.
    - **log_evidence** - what each added to the log evidence.
    - **ess** - effective number of particles after reweighting.
    - **accept_prob**, **step_size** - of the moves.
    """

    inverse_temperature: Any
    log_evidence: Any
    ess: Any
    accept_prob: Any
    step_size: Any


class TemperedSMC(ParticleInference):
    r"""Tempered sequential Monte Carlo: draws of the posterior, and the evidence of the model.

    Particles are drawn from the prior, a diffusion prior by its own sampler, and follow

    .. math:: \pi_\lambda(z) \propto p(z)\, L(y \mid z)^{\lambda}

    from λ = 0 to 1. Each stage reweights them to the next λ, which leaves them ``target_ess`` of
    their effective number, resamples them systematically, and moves each by ``num_moves`` steps of
    MALA, whose step size and scale are tuned at each stage. It is BlackJAX's
    ``adaptive_tempered_smc``. The mean weights multiply to the evidence :math:`p(y)`.

    *Exact* as the number of particles grows, for x with the noise of ``sde.t_min``: modes have the
    weights that the prior's draws and the likelihood give them. No density of a diffusion is
    needed, weights are likelihoods; moves are local, and where a diffusion is known by a score they
    take a line integral of ``path_nodes`` nodes each.

    *Use it* for posteriors with many modes, for the evidence, and where the prior is easy to draw
    from. *Do not* where data say much more than the prior: of the particles in each mode only a
    few descend from different draws then, and its weight is as uncertain as their number is small.
    The runs then differ, which R-hat tells, and :attr:`log_evidence_error`.

    Moves follow the score at the least noise, which is the one that a network learns worst. Where
    it is not the score of the prior's own draws, :meth:`run` warns (Hyvärinen 2005, equation 4):
    learned at a fiftieth of the width of modes, weights were off by 0.5, and by 0.03 at a quarter.

    **References:** Neal (2001), "Annealed importance sampling"; Del Moral, Doucet & Jasra (2006),
    "Sequential Monte Carlo samplers", Journal of the Royal Statistical Society B 68.

    :param model: a NumPyro model whose prior can be drawn from.
    :param num_particles: particles of each run.
    :param num_chains: independent runs, which stand where an ``MCMC`` has chains.
    :param num_moves: steps of MALA at each stage.
    :param target_ess: effective fraction of the particles at each stage, between 0 and 1.
    :param path_nodes: nodes of the line integrals along a move, both ends included.
    :param progress_bar: whether to show how far λ has come.
    :raises TypeError: ``model`` is not callable.
    :raises ValueError: for a number out of range; in :meth:`run`, for a model that cannot be
        sampled (:func:`check_model`).

    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro_score.infer import TemperedSMC
    >>> def model(y):
    ...     mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    ...     numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> smc = TemperedSMC(model, num_particles=2_000, progress_bar=False)
    >>> smc.run(jax.random.key(0), 2.0)
    >>> smc.get_samples()["mu"].shape
    (8000,)
    >>> exact = dist.Normal(0.0, jnp.sqrt(10.0)).log_prob(2.0)
    >>> bool(abs(smc.log_evidence - exact) < 0.1)
    True
    """

    def __init__(
        self,
        model: Callable[..., Any],
        num_particles: int = 1_000,
        *,
        num_chains: int = 4,
        num_moves: int = 10,
        target_ess: float = 0.8,
        path_nodes: int = 3,
        progress_bar: bool = True,
    ) -> None:
        super().__init__(model, num_particles, num_chains, num_moves, path_nodes, progress_bar)
        check_probability(target_ess, "target_ess")
        self.target_ess = target_ess
        self._stages: Stages | None = None

    @property
    def stages(self) -> Stages:
        """What happened on the way, stage by stage."""
        self._check_run()
        assert self._stages is not None, "_draw"
        return self._stages

    @property
    def log_evidence(self) -> float:
        """The log of the mean over runs of their estimates of p(y), each without bias.

        It lacks log Z of observed sites that are unnormalized, of which ``run`` warns.
        """
        return float(_log_mean(np.asarray(self.stages.log_evidence, float).sum(1)))

    @property
    def log_evidence_error(self) -> float:
        """Its standard error, from how the runs differ; NaN for one run."""
        logs = np.asarray(self.stages.log_evidence, float).sum(1)
        if len(logs) == 1:
            return float("nan")
        relative = np.exp(logs - _log_mean(logs))
        return float(relative.std(ddof=1) / np.sqrt(len(logs)))

    def _draw(self, rng_key: Array, target: ParticleTarget) -> tuple[PyTree, dict[str, Any]]:
        _warn_of_unnormalized(target.unnormalized)
        prior_key, stage_key = jax.random.split(rng_key)
        z = self._draw_prior(prior_key, target)
        _refuse_impossible(jax.jit(jax.vmap(jax.vmap(target.log_likelihood)))(z))
        state = jax.vmap(adaptive_tempered.init)(z)
        step_size = jnp.full(self.num_chains, self._moves.first_step_size(z))
        advance = jax.jit(jax.vmap(partial(self._advance, target)))
        reports: list[Stages] = []
        with tqdm(total=1.0, disable=not self.progress_bar, bar_format=_BAR) as bar:
            done = last = False
            while not last:
                if len(reports) == _MAX_STAGES:
                    raise RuntimeError(
                        f"After {_MAX_STAGES} stages λ is {np.min(state.tempering_param):.3g}: the "
                        "likelihood differs too much between particles. Is its scale right?"
                    )
                # The stage that reaches λ = 1 reweights: one more resamples and moves there.
                last = done
                stage_key, key = jax.random.split(stage_key)
                keys = jax.random.split(key, self.num_chains)
                before = float(np.min(state.tempering_param))
                state, tuning, report = advance(keys, state, step_size)
                step_size = tuning.step_size
                self._moves.refuse_lost(tuning.lost, f"At λ = {before:.3g}")
                reports.append(jax.device_get(report))
                reached = float(np.min(state.tempering_param))
                done = reached >= 1 - _ROUNDING
                bar.update(reached - bar.n)
                bar.set_postfix_str(f"{len(reports)} stages")
        self._stages = Stages(*(np.stack(fields, 1) for fields in zip(*reports, strict=True)))
        likelihood = jax.jit(jax.vmap(jax.vmap(target.log_likelihood)))(state.particles)
        return state.particles, {"log_likelihood": likelihood}

    def _advance(
        self, target: ParticleTarget, rng_key: Array, state: Any, step_size: Array
    ) -> tuple[Any, Tuning, Stages]:
        """Take one stage of one run."""
        tune_key, stage_key = jax.random.split(rng_key)

        def log_prior(z: PyTree) -> Array:
            return target.log_prior(z, POSTERIOR)

        def log_posterior(z: PyTree) -> Array:
            return log_prior(z) + state.tempering_param * target.log_likelihood(z)

        # Moves follow the resampling, before the likelihood counts for more.
        tuning = self._moves.tune(
            tune_key, state.particles, state.weights, log_posterior, step_size
        )
        stage = adaptive_tempered.build_kernel(
            log_prior,
            target.log_likelihood,
            self._moves.step,
            self._moves.init,
            resampling.systematic,
            self.target_ess,
        )
        parameters = {"step_size": tuning.step_size[None], "scale": tuning.scale[None]}
        state, info = stage(stage_key, state, self.num_moves, parameters)
        accept_prob = jnp.mean(jnp.nan_to_num(info.update_info.acceptance_rate))
        report = Stages(
            state.tempering_param,
            info.log_likelihood_increment,
            1 / jnp.sum(state.weights**2),
            accept_prob,
            tuning.step_size,
        )
        return state, tuning, report

    def print_summary(self, prob: float = 0.9, exclude_deterministic: bool = True) -> None:
        """Print a table of the draws, and the log evidence."""
        super().print_summary(prob, exclude_deterministic)
        print(f"Log evidence: {self.log_evidence:.2f} ± {self.log_evidence_error:.2f}")


def _log_mean(logs: np.ndarray) -> float:
    return float(np.logaddexp.reduce(logs) - np.log(len(logs)))


def _warn_of_unnormalized(sites: tuple[str, ...]) -> None:
    if sites:
        warnings.warn(
            f"log_evidence lacks log Z of the unnormalized {', '.join(map(repr, sites))}: compare "
            "it only among models that share this density, or give the distribution its "
            "log_normalizer (see estimate_log_normalizer). The draws are right.",
            stacklevel=find_stack_level(),
        )


def _refuse_impossible(log_likelihood: Array) -> None:
    values = np.asarray(log_likelihood)
    if np.isnan(values).any():
        raise FloatingPointError(
            f"The log likelihood of {np.isnan(values).mean():.1%} of the draws from the prior is "
            "NaN."
        )
    if not (values > IMPOSSIBLE).any(1).all():
        raise FloatingPointError(
            "The likelihood of every draw from the prior is 0: the data cannot come from this "
            "model, or its likelihood is narrower than floating-point numbers can tell."
        )
