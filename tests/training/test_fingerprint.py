"""By what a checkpoint knows an objective and a network, in any process."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from numpyro_score._contents import digest_contents, digest_structure, words
from numpyro_score.networks import (
    AtNoise,
    DenoiserEnergy,
    EnergyMLP,
    NoiseEnergyMLP,
    ScoreMLP,
)
from numpyro_score.objectives import NoiseContrastiveEstimation
from numpyro_score.sde import VE, VP, InTime

KEY = jax.random.key(0)


def noise(loc, scale):
    return NoiseContrastiveEstimation(dist.Normal(jnp.full(2, loc), jnp.full(2, scale)))


def test_contents_do_not_hang_on_the_order_of_fields_in_a_process(monkeypatch):
    before = digest_contents(noise(1.0, 2.0))
    fields = dist.Normal.gather_pytree_data_fields()
    other = classmethod(lambda cls: fields[::-1])
    monkeypatch.setattr(dist.Normal, "gather_pytree_data_fields", other)
    assert digest_contents(noise(1.0, 2.0)) == before
    assert digest_contents(noise(2.0, 1.0)) != before


def test_contents_are_found_where_an_objective_may_have_them():
    class Objective:
        def __init__(self, value):
            self.value = {"of": [value, jax.random.key(0), None, "a word", jnp.sin]}

    class Module(eqx.Module):
        value: jax.Array

    for make in (Objective, Module, partial(partial, jnp.sum), lambda x: partial(jnp.sum, where=x)):
        one, again, other = (digest_contents(make(jnp.full(3, x))) for x in (1.0, 1.0, 2.0))
        assert one == again != other
    assert digest_contents(Objective(1.0)) != digest_contents(Objective(2.0))


def test_a_structure_is_all_but_the_arrays():
    of_levels = NoiseEnergyMLP(2, width=4, key=KEY)
    networks = [
        EnergyMLP(2, width=4, key=KEY),
        EnergyMLP(2, width=4, residual=True, key=KEY),
        EnergyMLP(2, width=4, activation=jnp.tanh, key=KEY),
        DenoiserEnergy(ScoreMLP(2, width=4, key=KEY), 0.1),
        DenoiserEnergy(ScoreMLP(2, width=4, key=KEY), 0.2),
        AtNoise(of_levels, 0.1),
        AtNoise(of_levels, 0.2),
        InTime(of_levels, VE()),
        InTime(of_levels, VP()),
        eqx.nn.MLP(2, 2, 4, 1, activation=jnp.tanh, key=KEY),
        eqx.nn.MLP(2, 2, 4, 1, activation=jax.nn.silu, key=KEY),
    ]
    assert len({digest_structure(network) for network in networks}) == len(networks)
    doubled = (jax.tree.map(lambda x: 2 * x if eqx.is_array(x) else x, n) for n in networks)
    assert list(map(digest_structure, doubled)) == list(map(digest_structure, networks))


def test_what_names_an_address_is_the_same_in_another_process():
    one, other = (
        NoiseContrastiveEstimation(dist.Normal(jnp.zeros(2), 1.0).to_event(1)) for _ in range(2)
    )
    assert words(one) == words(other)
