"""Langevin dynamics through decreasing noise, under the likelihood of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from numpyro_score._checks import check_int
from numpyro_score._typing import Array, PyTree
from numpyro_score.infer._ladder import build_ladder
from numpyro_score.infer._levels import Level, latent_diffusions
from numpyro_score.infer._particle_moves import Tuning
from numpyro_score.infer._particle_target import ParticleTarget, add_noise
from numpyro_score.infer.particles import ParticleInference


class AnnealedLangevin(ParticleInference):
    r"""Annealed Langevin dynamics for a model with a diffusion prior: many modes, at little cost.

    Particles start as draws from the prior with noise :math:`\sigma_K`, and take ``num_moves``
    Langevin steps at each noise level, from the largest to the smallest,

    .. math:: \pi_k(x, \theta) \propto p_{\sigma_k}(x)\, p(\theta)\, L(y \mid x, \theta)

    Each step is tested as MALA's are, with step size and scale tuned at each level: a narrow
    likelihood cannot make it diverge. No density is needed; where the diffusion is known by a score
    a step takes a line integral of ``path_nodes`` nodes.

    **Biased**: particles stay in the mode that they were in when it parted from the others, and the
    weights of modes are those of the noise level where that was. No diagnostic tells. *Use it* for
    a first look at what the modes are, and for starts of :class:`ReplicaExchange`; *do not* where
    their weights matter.

    **References:** Y. Song & Ermon (2019), "Generative modeling by estimating gradients of the data
    distribution", algorithm 1; Jalal et al. (2021), "Robust compressed sensing MRI with deep
    generative priors", algorithm 1, for the likelihood.

    :param model: a NumPyro model whose prior can be drawn from, with a
        :class:`~numpyro_score.distributions.DiffusionDistribution` at a latent site.
    :param num_particles: particles of each run.
    :param noise_levels: growing noise in units of the data, see :class:`ReplicaExchange`.
    :param num_levels: how many levels are laid between those given.
    :param num_chains: runs, which stand where an ``MCMC`` has chains.
    :param num_moves: steps at each level.
    :param path_nodes: nodes of the line integrals along a step, both ends included.
    :param progress_bar: whether to show the levels.
    :raises TypeError: ``model`` is not callable.
    :raises ValueError: for a number out of range; in :meth:`run`, for a model that cannot be
        sampled, or without a diffusion.

    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro_score.distributions import DiffusionDistribution
    >>> from numpyro_score.infer import AnnealedLangevin
    >>> from numpyro_score.sde import VE
    >>> sde = VE(0.01, 5.0)
    >>> def model(y):
    ...     score = lambda x, t: -x / (1 + sde.marginal_std(t) ** 2)
    ...     x = numpyro.sample("x", DiffusionDistribution(score, sde, (1,)))
    ...     numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)
    >>> sampler = AnnealedLangevin(model, 500, progress_bar=False)
    >>> sampler.run(jax.random.key(0), jnp.array([2.0]))
    >>> abs(sampler.get_samples()["x"].mean().item() - 1.0) < 0.1
    True
    """

    bias = "weights of modes stay those of the noise at which they parted"

    def __init__(
        self,
        model: Callable[..., Any],
        num_particles: int = 1_000,
        noise_levels: Sequence[float] | None = None,
        *,
        num_levels: int = 20,
        num_chains: int = 4,
        num_moves: int = 20,
        path_nodes: int = 3,
        progress_bar: bool = True,
    ) -> None:
        super().__init__(model, num_particles, num_chains, num_moves, path_nodes, progress_bar)
        check_int(num_levels, "num_levels", 2)
        self.num_levels = num_levels
        self.noise_levels = noise_levels

    def _draw(self, rng_key: Array, target: ParticleTarget) -> tuple[PyTree, dict[str, Any]]:
        diffusions = latent_diffusions(target.model, target.args, target.kwargs)
        if not diffusions:
            raise ValueError(
                "AnnealedLangevin needs a latent site with a DiffusionDistribution, whose noise "
                "can decrease, and this model has none: use TemperedSMC."
            )
        ladder = build_ladder(self.num_levels, self.noise_levels, None, diffusions)
        prior_key, noise_key, walk_key = jax.random.split(rng_key, 3)
        z = self._draw_prior(prior_key, target)
        top = jnp.asarray(ladder.noise_scale[-1], float)
        z = add_noise(noise_key, z, target.diffusions, top)
        step_size = jnp.full(self.num_chains, self._moves.first_step_size(z))
        settle = jax.jit(jax.vmap(partial(self._settle, target), (0, 0, None, 0)))
        with tqdm(total=self.num_levels, disable=not self.progress_bar, unit="level") as bar:
            for noise_scale in ladder.noise_scale[::-1]:
                walk_key, key = jax.random.split(walk_key)
                keys = jax.random.split(key, self.num_chains)
                z, tuning, accept_prob = settle(keys, z, jnp.asarray(noise_scale), step_size)
                step_size = tuning.step_size
                self._moves.refuse_lost(tuning.lost, f"At the noise level {noise_scale:.3g}")
                bar.update()
        return z, {"accept_prob": accept_prob}

    def _settle(
        self,
        target: ParticleTarget,
        rng_key: Array,
        z: PyTree,
        noise_scale: Array,
        step_size: Array,
    ) -> tuple[PyTree, Tuning, Array]:
        """Take the steps of one run at one level; the last result is the acceptance by particle."""

        def log_density(z: PyTree) -> Array:
            return target.log_prior(z, Level(noise_scale, 1.0)) + target.log_likelihood(z)

        tune_key, walk_key = jax.random.split(rng_key)
        weights = jnp.full(self.num_samples, 1 / self.num_samples)
        tuning = self._moves.tune(tune_key, z, weights, log_density, step_size)

        def walk(rng_key: Array, z: PyTree) -> tuple[PyTree, Array]:
            def step(particle: Any, key: Array) -> tuple[Any, Array]:
                particle, info = self._moves.step(
                    key, particle, log_density, tuning.step_size, tuning.scale
                )
                return particle, jnp.nan_to_num(info.acceptance_rate)

            keys = jax.random.split(rng_key, self.num_moves)
            particle, accept_prob = jax.lax.scan(step, self._moves.init(z, log_density), keys)
            return particle.position, jnp.mean(accept_prob)

        z, accept_prob = jax.vmap(walk)(jax.random.split(walk_key, self.num_samples), z)
        return z, tuning, accept_prob
