"""What every contract test runs over: a new distribution or kernel is one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from numpyro_score import infer, networks
from numpyro_score.distributions import (
    DensityDistribution,
    DiffusionDistribution,
    EnergyDistribution,
    LearnedDistribution,
    Product,
    ScoreDistribution,
)
from numpyro_score.samplers import Langevin
from numpyro_score.sde import VP

PRECISION = jnp.array([[2.0, 0.6], [0.6, 1.0]])
MEAN = jnp.array([1.0, -2.0])


def gaussian_energy(x):
    """Energy of N(MEAN, PRECISION⁻¹)."""
    return 0.5 * (x - MEAN) @ PRECISION @ (x - MEAN)


def gaussian_score(x):
    """Score of the same."""
    return -PRECISION @ (x - MEAN)


def noised_gaussian_score(x, t):
    """Score of the same with the noise of a diffusion."""
    scale, std = VP().mean_scale(t), VP().marginal_std(t)
    covariance = scale**2 * jnp.linalg.inv(PRECISION) + std**2 * jnp.eye(2)
    return -jnp.linalg.solve(covariance, x - scale * MEAN)


class FunctionLeaf(eqx.Module):
    """The energy of a standard normal; its function is a leaf, as those of Equinox's layers are."""

    function: Callable

    def __call__(self, x):
        return 0.5 * jnp.sum(self.function(x) ** 2)


class DistributionCase(NamedTuple):
    """A distribution, and the exact one that it equals up to a constant (None: unknown).

    ``draws``: whether it has a sampler, and a normalizer, of its own.
    """

    make: Callable[..., LearnedDistribution]
    exact: Callable[[], dist.Distribution] | None = None
    draws: bool = False


def _gaussian():
    return dist.MultivariateNormal(MEAN, precision_matrix=PRECISION)


def _product():
    # Precisions add up, 0.5 + 2 + 6 / 4, and so do their products with the means.
    pull = 0.5 * jnp.arange(6.0).reshape(3, 2) + 2.0 + 1.5 * jnp.array([0.5, -1.0])
    return dist.Normal(pull / 4.0, 0.5).to_event(1)


def _conditional():
    return dist.Normal(jnp.arange(6.0).reshape(3, 2), 1.0).to_event(1)


DISTRIBUTIONS: dict[str, DistributionCase] = {
    "energy": DistributionCase(
        lambda **k: EnergyDistribution(gaussian_energy, (2,), **k), _gaussian
    ),
    "score": DistributionCase(lambda **k: ScoreDistribution(gaussian_score, (2,), **k), _gaussian),
    "energy_network": DistributionCase(
        lambda **k: EnergyDistribution(
            networks.EnergyMLP(2, width=8, key=jax.random.key(1)), (2,), **k
        ),
        lambda: dist.Normal(jnp.zeros(2), 1.0).to_event(1),
    ),
    "score_network": DistributionCase(
        lambda **k: ScoreDistribution(
            networks.ScoreMLP(2, width=8, key=jax.random.key(1)), (2,), **k
        ),
        lambda: dist.Normal(jnp.zeros(2), 1.0).to_event(1),
    ),
    "energy_function_leaf": DistributionCase(
        lambda **k: EnergyDistribution(FunctionLeaf(jnp.negative), (2,), **k),
        lambda: dist.Normal(jnp.zeros(2), 1.0).to_event(1),
    ),
    "energy_conditional": DistributionCase(
        lambda **k: EnergyDistribution(
            lambda x, c: 0.5 * jnp.sum((x - c) ** 2),
            (2,),
            condition=jnp.arange(6.0).reshape(3, 2),
            **k,
        ),
        _conditional,
    ),
    "score_conditional": DistributionCase(
        lambda **k: ScoreDistribution(
            lambda x, c: c - x, (2,), condition=jnp.arange(6.0).reshape(3, 2), **k
        ),
        _conditional,
    ),
    "energy_matrix_event": DistributionCase(
        lambda **k: EnergyDistribution(lambda x: 0.5 * jnp.sum((x - 1) ** 2), (2, 3), **k),
        lambda: dist.Normal(jnp.ones((2, 3)), 1.0).to_event(2),
    ),
    "score_matrix_event": DistributionCase(
        lambda **k: ScoreDistribution(lambda x: 1 - x, (2, 3), **k),
        lambda: dist.Normal(jnp.ones((2, 3)), 1.0).to_event(2),
    ),
    "energy_scalar_event": DistributionCase(
        lambda **k: EnergyDistribution(lambda x: 0.5 * x**2, (), **k), lambda: dist.Normal(0.0, 1.0)
    ),
    "energy_positive": DistributionCase(
        lambda **k: EnergyDistribution(
            lambda x: jnp.sum(2 * x - 2 * jnp.log(x)), (3,), support=constraints.positive, **k
        ),
        lambda: dist.Gamma(3 * jnp.ones(3), 2.0).to_event(1),
    ),
    "energy_simplex": DistributionCase(
        lambda **k: EnergyDistribution(
            lambda x: -jnp.sum(jnp.array([1.0, 2.0, 3.0]) * jnp.log(x)),
            (3,),
            support=constraints.simplex,
            **k,
        ),
        lambda: dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])),
    ),
    "energy_interval": DistributionCase(
        lambda **k: EnergyDistribution(
            lambda x: -jnp.sum(jnp.log(x) + jnp.log1p(-x)),
            (2,),
            support=constraints.unit_interval,
            **k,
        ),
        lambda: dist.Beta(2 * jnp.ones(2), 2.0).to_event(1),
    ),
    "density_conditional": DistributionCase(
        lambda **k: DensityDistribution(
            networks.from_distribution(lambda p, c: dist.Normal(c, p).to_event(1), jnp.ones(2)),
            (2,),
            condition=jnp.arange(6.0).reshape(3, 2),
            **k,
        ),
        _conditional,
        draws=True,
    ),
    "diffusion": DistributionCase(
        lambda **k: DiffusionDistribution(noised_gaussian_score, VP(), (2,), num_steps=3, **k),
        _gaussian,
        draws=True,
    ),
    "diffusion_conditional": DistributionCase(
        lambda **k: DiffusionDistribution(
            lambda x, t, c: VP().mean_scale(t) * c - x,
            VP(),
            (2,),
            condition=jnp.arange(6.0).reshape(3, 2),
            num_steps=3,
            **k,
        ),
        _conditional,
        draws=True,
    ),
    "product": DistributionCase(
        lambda **k: Product(
            [
                EnergyDistribution(
                    lambda x, c: 0.5 * jnp.sum((x - c) ** 2),
                    (2,),
                    condition=jnp.arange(6.0).reshape(3, 2),
                ),
                ScoreDistribution(lambda x: 1 - x, (2,)),
                dist.Normal(jnp.array([0.5, -1.0]), 2.0).to_event(1),
            ],
            weights=[0.5, 2.0, 6.0],
            **k,
        ),
        _product,
    ),
    "score_positive": DistributionCase(
        lambda **k: ScoreDistribution(
            lambda x: 2 / x - 2, (3,), support=constraints.positive, num_nodes=64, **k
        ),
        lambda: dist.Gamma(3 * jnp.ones(3), 2.0).to_event(1),
    ),
}

SHORT_RUN = Langevin(num_steps=3)


class KernelCase(NamedTuple):
    """A kernel, with its options that make it as exact as it can be.

    ``gradients``: of the model, in a step or in a leapfrog step. ``products``: matrix products of a
    dense metric for each of them, None without a dense metric.
    """

    make: Callable[..., Any]
    exact: bool = True
    statistic: str = "accept_prob"
    gradients: int = 1
    products: int | None = 2


KERNELS: dict[str, KernelCase] = {
    "mala": KernelCase(infer.MALA),
    "mala_dense": KernelCase(lambda *a, **k: infer.MALA(*a, **{"dense_mass": True, **k})),
    "ula": KernelCase(infer.ULA, exact=False, statistic="energy_error"),
    "barker": KernelCase(infer.Barker),
    # A trajectory is placed once more where it ends.
    "ghmc": KernelCase(infer.GHMC, products=3),
    "hmc": KernelCase(lambda *a, **k: infer.HMC(*a, num_steps=4, **k), products=3),
    "nuts": KernelCase(infer.NUTS, products=3),
    "mclmc": KernelCase(
        infer.MCLMC, exact=False, statistic="energy_error", gradients=2, products=None
    ),
    "adjusted_mclmc": KernelCase(infer.AdjustedMCLMC, gradients=2, products=None),
}

# Kernels that tune several chains together, and so cannot run one.
POOLED = {
    "mala_pooled": KernelCase(
        lambda *a, **k: infer.MALA(*a, **{"dense_mass": True, "adaptation": "pooled", **k})
    ),
    "chees": KernelCase(infer.ChEES),
}
