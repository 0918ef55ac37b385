"""Ladders and kernels that replica exchange refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Gibbs

from numpyro_score import infer
from numpyro_score.distributions import DiffusionDistribution
from numpyro_score.infer import MALA, MCMC, ReplicaExchange
from numpyro_score.infer._ladder import build_ladder

from .test_replica_exchange import SDE, TOY, run, toy_model, two_modes_of_a_likelihood


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_levels": (1.0, 0.5)}, "must grow"),
        ({"noise_levels": (0.0, 0.5)}, "noise_levels"),
        ({"noise_levels": (1.0,)}, "must grow"),
        ({"inverse_temperatures": (0.9, 0.5)}, "begin with the 1"),
        ({"inverse_temperatures": (1.0, 0.5, 0.7)}, "begin with the 1"),
    ],
)
def test_ladders_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        run(ReplicaExchange(MALA(toy_model()), **options))


def test_the_first_level_is_the_posterior_whatever_is_given():
    given = build_ladder(
        4, (3.0, 10.0), None, {"x": DiffusionDistribution(TOY.energy(SDE), SDE, (2,))}
    )
    np.testing.assert_allclose(given.noise_scale[[0, -1]], [0.02, 10.0], rtol=1e-5)


def test_a_ladder_that_changes_nothing():
    y = jnp.array([3.0])
    with pytest.raises(ValueError, match="All replicas would be the same"):
        run(ReplicaExchange(MALA(two_modes_of_a_likelihood)), y)
    with pytest.raises(ValueError, match="this model has none"):
        run(ReplicaExchange(MALA(two_modes_of_a_likelihood), (0.1, 1.0)), y)


def test_kernels_that_cannot_move_replicas():
    with pytest.raises(TypeError, match="made with a model"):
        ReplicaExchange(MALA)
    with pytest.raises(TypeError, match="made with a model"):
        ReplicaExchange(numpyro.infer.NUTS(two_modes_of_a_likelihood))
    with pytest.raises(TypeError, match="SGLD cannot move replicas"):
        ReplicaExchange(infer.SGLD(two_modes_of_a_likelihood, step_size=0.1))
    with pytest.raises(ValueError, match="needs a kernel with a model"):
        ReplicaExchange(MALA(potential_fn=lambda z: z @ z))
    with pytest.raises(ValueError, match="num_moves"):
        ReplicaExchange(MALA(toy_model()), num_moves=0)


def test_a_block_of_gibbs_beside_others():
    """Replicas above the posterior would be draws for siblings that have since moved."""

    def model():
        x = numpyro.sample("x", DiffusionDistribution(TOY.energy(SDE), SDE, (2,)))
        numpyro.sample("y", dist.Normal(x.sum(), 1.0))

    kernel = Gibbs([(ReplicaExchange(MALA(model)), ["x"]), (MALA(model), ["y"])])
    mcmc = MCMC(kernel, num_warmup=10, num_samples=10, progress_bar=False)
    with pytest.raises(infer.ModelError, match=r"old values.*take its kernel alone, MALA\(model\)"):
        mcmc.run(jax.random.key(0))


def test_a_condition_that_is_latent_is_doubly_intractable_at_other_levels():
    energy = lambda x, t, c: 0.5 * jnp.sum((x - c) ** 2) / (1 + SDE.marginal_std(t) ** 2)  # noqa: E731

    def model():
        c = numpyro.sample("c", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.sample("x", DiffusionDistribution(energy, SDE, (2,), condition=c))

    with pytest.raises(infer.DoublyIntractableError, match="Site 'x'"):
        run(ReplicaExchange(MALA(model)))
