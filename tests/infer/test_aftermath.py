"""What a run tells unasked: chains that stood still, and ladders that nobody climbed."""

import re
import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_score.distributions import DiffusionDistribution
from numpyro_score.infer import MALA, MCMC, ReplicaExchange
from numpyro_score.infer._aftermath import Departure, positions, stood_still
from numpyro_score.infer._levels import Level
from numpyro_score.infer._replica_remarks import remarks

from .test_replica_exchange import SDE, TOY, run

# -- chains that stood still ---------------------------------------------------------------------


def wall(side):
    """A normal that is NaN but where the chain begins, if ``side`` is not 0."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("nan", jnp.where(side * (x - 0.5) != 0, jnp.nan, 0.0))


@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("kernel", [MALA, numpyro.infer.NUTS])
def test_chains_that_stood_still(kernel, num_chains):
    mcmc = MCMC(
        kernel(wall),
        num_warmup=5,
        num_samples=100,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    starts = {"x": jnp.full((num_chains,) if num_chains > 1 else (), 0.5)}
    keys = jax.random.key(0)
    with pytest.warns(UserWarning, match=r"chain 0.* did not move in 100 steps"):
        mcmc.run(keys, 1.0, init_params=starts)
    mcmc.run(keys, 0.0, init_params=starts)  # warnings are errors: nothing to say


def test_which_chains_and_after_how_many_steps():
    before = np.zeros((3, 2))
    after = np.array([[0.0, 0.0], [0.0, 0.1], [0.0, 0.0]])
    assert "chain 0, 2 (counting" in stood_still(Departure(10, before), 110, after)
    assert stood_still(Departure(11, before), 110, after) is None
    assert stood_still(Departure(10, before), 110, after + 0.1) is None


def test_what_is_discrete_may_stay():
    kernel = SimpleNamespace(sample_field="z")
    states = [SimpleNamespace(z={"k": np.arange(3), "x": np.ones((3, 2))})]
    assert positions(kernel, states, True).shape == (3, 2)
    assert positions(kernel, states, False).shape == (1, 6)
    discrete = positions(kernel, [SimpleNamespace(z={"k": np.arange(3)})], True)
    assert stood_still(Departure(0, discrete), 500, discrete) is None


# -- ladders -------------------------------------------------------------------------------------


def ended(**fields):
    """A healthy run of two chains at three levels, but for ``fields``."""
    healthy = {
        "journeys": SimpleNamespace(round_trips=jnp.array([4, 5])),
        "num_swaps": jnp.full((2, 2), 100),
        "num_undefined": jnp.zeros((2, 2), int),
        "num_hopeless": jnp.zeros((2, 3), int),
        "mean_swap_accept_prob": jnp.array([[0.5, 0.04], [0.5, 0.02]]),
        "levels": Level(jnp.array([[0.1, 1.0, 9.0]] * 2), jnp.array([[1.0, 1.0, 0.5]] * 2)),
    }
    return SimpleNamespace(**(healthy | fields))


TOP = r"level 1 \(noise 1\) and level 2 \(noise 9, power 0.5 of the likelihood\)"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, None),
        (
            {"journeys": SimpleNamespace(round_trips=jnp.array([0, 0]))},
            rf"2 of 2 chains had no round trip .* in 200 steps.*least \(3.0%\) between {TOP}",
        ),
        ({"journeys": SimpleNamespace(round_trips=jnp.array([0, 1]))}, None),
        (
            {"num_undefined": jnp.array([[0, 3], [0, 7]])},
            rf"10 of 400 swaps .* NaN, most \(5.0%\) between {TOP}",
        ),
        ({"num_hopeless": jnp.array([[0, 0, 2], [0, 20, 1]])}, r"5.0% of the moves at level 1"),
        ({"num_hopeless": jnp.array([[0, 0, 2], [0, 0, 1]])}, None),
    ],
)
def test_what_is_wrong_with_a_ladder(fields, said):
    found = remarks(ended(**fields))
    if said is None:
        assert found == []
    else:
        (sentence,) = found
        assert re.search(said, sentence)


def test_a_score_that_is_nan_far_from_the_data():
    """Planted: no number at much noise, where that leads beyond 12."""

    def energy(x, t):
        lost = (SDE.marginal_std(t) > 5.0) & (jnp.abs(x).max() > 12.0)
        return jnp.where(lost, jnp.nan, 1.0) * TOY.energy(SDE)(x, t)

    prior = DiffusionDistribution(energy, SDE, (2,))
    kernel = ReplicaExchange(MALA(lambda: numpyro.sample("x", prior)), num_replicas=8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mcmc = run(kernel, num_chains=4, num_samples=100, num_warmup=100)
    said = [str(warning.message) for warning in caught]
    assert any("swaps were refused because the ratio of densities was NaN" in s for s in said)
    assert any(re.search(r"moves at level \d \(noise \d+\.?\d*\) were hopeless", s) for s in said)
    assert np.isfinite(mcmc.get_samples()["x"]).all()
