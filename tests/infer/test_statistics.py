"""Kernels draw from the density they are given; planted bugs are caught by the same assertion."""

from __future__ import annotations

import blackjax.mcmc.diffusions as diffusions
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.diagnostics import effective_sample_size
from numpyro.distributions import constraints
from numpyro.infer import MCMC
from numpyro.infer.util import transform_fn

from numpyro_score.distributions import EnergyDistribution, ScoreDistribution
from numpyro_score.infer import MALA, ULA
from tests.cases import KERNELS, POOLED
from tests.statistics import Moments, assert_recovers

# Shifted, anisotropic (standard deviations 10, 1, .1) and correlated.
_SD = np.array([10.0, 1.0, 0.1])
_CORRELATION = np.array([[1.0, 0.8, -0.5], [0.8, 1.0, -0.3], [-0.5, -0.3, 1.0]])
COVARIANCE = _CORRELATION * np.outer(_SD, _SD)
LOC = np.array([100.0, -3.0, 0.5])
# Skewed: a symmetric target would hide a wrong sign. Skewness 2 / √3.
SHAPE, RATE = 3.0, 2.0

EXACT = {
    "gaussian": Moments(LOC, _SD),
    "skewed": Moments(np.full(2, SHAPE / RATE), np.full(2, np.sqrt(SHAPE) / RATE)),
}
PRECISION = jnp.asarray(np.linalg.inv(COVARIANCE), float)


def exact_model():
    numpyro.sample("gaussian", dist.MultivariateNormal(LOC, COVARIANCE))
    numpyro.sample("skewed", dist.Gamma(jnp.full(2, SHAPE), RATE).to_event(1))


def energy_model():
    energy = lambda x: 0.5 * (x - LOC) @ PRECISION @ (x - LOC)  # noqa: E731
    numpyro.sample("gaussian", EnergyDistribution(energy, (3,)))
    numpyro.sample(
        "skewed",
        EnergyDistribution(
            lambda x: jnp.sum(RATE * x - (SHAPE - 1) * jnp.log(x)),
            (2,),
            support=constraints.positive,
        ),
    )


def score_model():
    score = lambda x: -PRECISION @ (x - LOC)  # noqa: E731
    numpyro.sample("gaussian", ScoreDistribution(score, (3,), anchor=LOC))
    numpyro.sample(
        "skewed",
        ScoreDistribution(
            lambda x: (SHAPE - 1) / x - RATE, (2,), support=constraints.positive, num_nodes=32
        ),
    )


def run(kernel, seed=0, **options):
    options = {"num_warmup": 1000, "num_samples": 3000, "num_chains": 4} | options
    mcmc = MCMC(kernel, chain_method="vectorized", progress_bar=False, **options)
    mcmc.run(random.key(seed))
    return mcmc.get_samples(group_by_chain=True)


def assert_model_recovered(draws):
    for name, exact in EXACT.items():
        assert_recovers(draws[name], exact)


@pytest.mark.parametrize(
    ("name", "model"),
    [(k, exact_model) for k, case in (KERNELS | POOLED).items() if case.exact]
    + [(k, model) for k in ("mala", "mala_dense") for model in (energy_model, score_model)],
)
def test_exact_kernels_recover_shifted_anisotropic_and_skewed_targets(name, model):
    # The diagonal metric cannot undo a correlation of 0.8: same steps, less information.
    num_samples = 3000 if "dense" in name or name in POOLED else 8000
    assert_model_recovered(run((KERNELS | POOLED)[name].make(model), num_samples=num_samples))


def test_ula_has_the_bias_that_its_docstring_states():
    """On a Gaussian in its own metric every variance grows by 1 / (1 - ε/2)."""
    step_size = 0.5
    kernel = ULA(
        potential_fn=lambda z: 0.5 * (z - LOC) @ PRECISION @ (z - LOC),
        step_size=step_size,
        inverse_mass_matrix=COVARIANCE,
        dense_mass=True,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    mcmc = MCMC(
        kernel,
        num_warmup=200,
        num_samples=8000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    init_params = jnp.tile(jnp.asarray(LOC, float), (4, 1))
    mcmc.run(random.key(0), init_params=init_params, extra_fields=("energy_error",))
    draws = mcmc.get_samples(group_by_chain=True)
    assert_recovers(draws, Moments(LOC, _SD / np.sqrt(1 - step_size / 2)))
    with pytest.raises(AssertionError, match="sd is"):
        assert_recovers(draws, Moments(LOC, _SD))

    errors = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["energy_error"], float)
    reported = np.asarray(mcmc.last_state.energy_variance)
    np.testing.assert_allclose(reported, (errors**2).mean(1) / len(LOC), rtol=1e-3)
    for values, exact in (
        (errors, 0.0),  # blind to the bias, which is why it is not what is reported
        (errors**2 / len(LOC), step_size**3 / (2 - step_size)),
    ):
        error = values.std() / np.sqrt(effective_sample_size(values))
        assert abs(values.mean() - exact) < 5 * error


# -- planted bugs ------------------------------------------------------------------------------


def test_catches_noise_of_the_wrong_size(monkeypatch):
    """√ε for √(2ε) in the proposal, while the test assumes √(2ε)."""
    right = diffusions.generate_gaussian_noise
    monkeypatch.setattr(
        diffusions, "generate_gaussian_noise", lambda key, x: right(key, x) / jnp.sqrt(2.0)
    )
    with pytest.raises(AssertionError, match=r"standard errors off|R-hat|ESS"):
        assert_model_recovered(run(MALA(exact_model, dense_mass=True)))


class _FlippedScore(MALA):
    """The score kept for the next step has the wrong sign: the reverse move is mistaken."""

    def _transition(self, rng_key, logdensity_fn, origin, *args):
        flipped = origin._replace(score=-origin.score)
        transition = super()._transition(rng_key, logdensity_fn, flipped, *args)
        score = jnp.where(transition.moved, transition.score, origin.score)
        return transition._replace(score=score)


def test_catches_a_flipped_score():
    with pytest.raises(AssertionError, match=r"standard errors off|R-hat|ESS"):
        assert_model_recovered(run(_FlippedScore(exact_model, dense_mass=True)))


def test_catches_a_dropped_jacobian():
    prior = dist.Gamma(jnp.full(2, SHAPE), RATE)

    def potential_fn(z):
        return -prior.log_prob(jnp.exp(z)).sum()  # and no `- z.sum()`

    mcmc = MCMC(
        MALA(potential_fn=potential_fn),
        num_warmup=1000,
        num_samples=40_000,  # its left tail is slow
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), init_params=jnp.zeros((4, 2)))
    draws = transform_fn(
        {"skewed": dist.transforms.ExpTransform()},
        {"skewed": mcmc.get_samples(group_by_chain=True)},
    )["skewed"]
    with pytest.raises(AssertionError, match="mean is"):
        assert_recovers(draws, EXACT["skewed"])


def test_catches_a_score_distribution_with_the_wrong_sign():
    def model():
        score = lambda x: (SHAPE - 1) / x + RATE - 2 * RATE * (x > 3)  # noqa: E731
        numpyro.sample("skewed", ScoreDistribution(score, (2,), support=constraints.positive))

    draws = run(MALA(model), num_samples=5000)
    with pytest.raises(AssertionError, match=r"standard errors off|R-hat|ESS"):
        assert_recovers(draws["skewed"], EXACT["skewed"])


def test_metropolis_is_exact_for_the_line_integral_of_a_field_with_curl():
    """s(x) = -x + ω J x has curl 2ω; φ does not see it, because the anchor is at the origin."""
    omega = 0.7
    rotation = jnp.array([[0.0, 1.0], [-1.0, 0.0]])

    def model():
        score = lambda x: -x + omega * rotation @ x  # noqa: E731
        numpyro.sample("x", ScoreDistribution(score, (2,)))

    draws = run(MALA(model), num_samples=5000)["x"]
    assert_recovers(draws, Moments(np.zeros(2), np.ones(2)))
    x = jnp.array([1.0, 2.0])
    d = ScoreDistribution(lambda x: -x + omega * rotation @ x, (2,))
    np.testing.assert_allclose(jax.grad(d.log_prob)(x), -x + omega * rotation @ x, rtol=1e-5)


def test_float32_is_enough_in_ten_thousand_dimensions():
    """Energies of 10⁴ are told apart to 10⁻³: the energy's own mean shows a biased acceptance."""
    size = 10_000
    kernel = MALA(potential_fn=lambda z: -dist.Normal(2.0, 3.0).log_prob(z).sum(), step_size=0.3)
    mcmc = MCMC(
        kernel,
        num_warmup=1000,
        num_samples=1500,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = 2.0 + 3.0 * random.normal(random.key(1), (2, size))
    mcmc.run(random.key(0), init_params=start, extra_fields=("potential_energy", "accept_prob"))
    extra = mcmc.get_extra_fields(group_by_chain=True)
    energy = extra["potential_energy"] - size * (0.5 * np.log(2 * np.pi) + np.log(3.0))
    # Half a χ² with 10⁴ degrees of freedom.
    assert_recovers(energy, Moments(size / 2, np.sqrt(size / 2)), min_ess=50)
    assert abs(extra["accept_prob"].mean() - 0.574) < 0.08
