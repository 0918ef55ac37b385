"""Settings that no objective can have."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from numpyro_score.networks import (
    AtNoise,
    DenoiserEnergy,
    EnergyMLP,
    FlowDensity,
    LogNormalizerMLP,
    NoiseEnergyMLP,
    NormalizedEnergy,
    ScoreMLP,
    TiltedEnergy,
    as_score,
)
from numpyro_score.objectives import (
    ContrastiveDivergence,
    DiffusionScoreMatching,
    EnergyDiscrepancy,
    ExplicitScoreMatching,
    LadderScoreMatching,
    MaximumLikelihood,
    NoiseContrastiveEstimation,
    PersistentContrastiveDivergence,
    SlicedScoreMatching,
)
from numpyro_score.sde import VE

NORMAL = dist.Normal(jnp.zeros(3), 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExplicitScoreMatching(0), "num_probes must be an integer of at least 1, got 0"),
        (lambda: ExplicitScoreMatching(1, "uniform"), "probe must be one of 'rademacher'"),
        (lambda: SlicedScoreMatching(0), "num_projections must be an integer of at least 1"),
        (lambda: SlicedScoreMatching(projection="x"), "projection must be one of"),
        (lambda: LadderScoreMatching(()), "at least one noise level"),
        (lambda: LadderScoreMatching((1.0, -1.0)), "every one of noise_scales must be a finite"),
        (lambda: DiffusionScoreMatching(VE(), "variance"), "weighting must be 'noise' or"),
        (lambda: MaximumLikelihood(-1.0), "noise_scale other than 0 must be a finite number"),
        (lambda: MaximumLikelihood(True), "noise_scale other than 0 must be a finite number"),
        (lambda: NoiseContrastiveEstimation(NORMAL, 0), "num_noise must be an integer"),
        (lambda: ContrastiveDivergence(0.0), "step_size must be a finite number above 0"),
        (lambda: ContrastiveDivergence(0.1, 0), "num_steps must be an integer of at least 1"),
        (lambda: ContrastiveDivergence(0.1, magnitude=-1.0), "magnitude other than 0"),
        (lambda: PersistentContrastiveDivergence(-0.1), "step_size must be a finite number"),
        (lambda: PersistentContrastiveDivergence(0.1, buffer_size=0), "buffer_size must be"),
        (lambda: PersistentContrastiveDivergence(0.1, restart_prob=1.0), "restart_prob must be at"),
        (lambda: EnergyDiscrepancy(0.0), "step_scale must be a finite number above 0"),
        (lambda: EnergyDiscrepancy(0.1, 0), "num_negatives must be an integer"),
        (lambda: EnergyDiscrepancy(0.1, 6), "num_negatives must be a multiple of 4"),
        (lambda: EnergyDiscrepancy(0.1, stabilizer=-1.0), "stabilizer other than 0"),
    ],
)
def test_numbers_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_distribution():
    with pytest.raises(TypeError, match="noise must be a NumPyro distribution"):
        NoiseContrastiveEstimation(3.0)
    with pytest.raises(TypeError, match="start must be a NumPyro distribution"):
        ContrastiveDivergence(0.1, start=lambda x: x)
    with pytest.raises(TypeError, match="sde must be a diffusion of"):
        DiffusionScoreMatching(0.1)


def energy(x, *condition):
    return jnp.sum(x**2)


def test_nce_needs_a_constant_unless_it_ranks():
    network, batch = EnergyMLP(3, width=4, key=jax.random.key(0)), jnp.zeros((4, 3))
    noise = NORMAL.to_event(1)
    with pytest.raises(
        ValueError, match=r"no free constant for it: give NormalizedEnergy\(network"
    ):
        NoiseContrastiveEstimation(noise)(network, batch, jax.random.key(0))
    for objective, given in (
        (NoiseContrastiveEstimation(noise), NormalizedEnergy(network)),
        (NoiseContrastiveEstimation(noise, ranking=True), network),
    ):
        assert objective(given, batch, jax.random.key(0)).shape == (4,)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            NoiseContrastiveEstimation(NORMAL),
            r"event_shape \(3,\) of the data, got \(3,\) and \(\)",
        ),
        (NoiseContrastiveEstimation(NORMAL.to_event(1).expand([2])), "batch_shape"),
        (NoiseContrastiveEstimation(lambda c: NORMAL.to_event(1)), "there is none"),
        (ContrastiveDivergence(0.1, start=dist.Normal(jnp.zeros(2), 1.0)), r"events of the shape"),
    ],
)
def test_noise_and_starts_of_another_shape(objective, message):
    with pytest.raises(ValueError, match=message):
        objective(energy, jnp.zeros((4, 3)), jax.random.key(0))


@pytest.mark.parametrize("wrap", [lambda network: network, NormalizedEnergy])
def test_maximum_likelihood_of_an_energy_whose_normalizer_is_unknown(wrap):
    network, batch = wrap(EnergyMLP(3, width=4, key=jax.random.key(0))), jnp.zeros((4, 3))
    with pytest.raises(ValueError, match=r"normalizer Z of a \w+ is unknown.*or learn this"):
        MaximumLikelihood()(network, batch, jax.random.key(0))


KINKS = EnergyMLP(3, width=4, activation=jax.nn.relu, key=jax.random.key(0))
RELU = ScoreMLP(3, width=4, activation=jax.nn.relu, key=jax.random.key(0))


@pytest.mark.parametrize("objective", [ExplicitScoreMatching(), SlicedScoreMatching()])
@pytest.mark.parametrize(
    "network",
    [
        KINKS,
        NormalizedEnergy(KINKS),
        TiltedEnergy(FlowDensity(3, width=4, key=jax.random.key(0)), KINKS),
        AtNoise(NoiseEnergyMLP(3, width=4, activation=jax.nn.relu, key=jax.random.key(0)), 0.1),
        DenoiserEnergy(RELU, 0.1),
        as_score(KINKS),
        eqx.nn.MLP(3, "scalar", 4, 1, key=jax.random.key(0)),
    ],
    ids=lambda network: type(network).__name__,
)
def test_an_energy_without_a_second_derivative(network, objective):
    """Its loss would be least for a flat density."""
    with pytest.raises(ValueError, match=r"needs an energy with two derivatives, got relu in the"):
        objective(network, jnp.zeros((4, 3)), jax.random.key(0))


def test_activations_that_need_no_second_derivative():
    """Those of a score, and of a function of the condition."""
    condition, key = jnp.zeros((4, 2)), jax.random.key(0)
    smooth = EnergyMLP(3, width=4, condition_size=2, key=key)
    of_condition = LogNormalizerMLP(2, width=4, activation=jax.nn.relu, key=key)
    conditional = NormalizedEnergy(smooth, of_condition=of_condition)
    for network, *rest in ((RELU,), (conditional, condition)):
        losses = jax.eval_shape(ExplicitScoreMatching(), network, jnp.zeros((4, 3)), key, *rest)
        assert losses.shape == (4,)
