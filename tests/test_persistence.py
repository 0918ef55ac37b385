"""What is saved is what is loaded: in another process, and without the code that made it."""

import json
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import numpyro_score
from numpyro_score import LoadError, load, save
from numpyro_score._array_file import read_file, write_file
from numpyro_score._description import describe
from numpyro_score.distributions import (
    DiffusionDistribution,
    EnergyDistribution,
    Mixture,
    Product,
    ScoreDistribution,
)
from numpyro_score.networks import (
    AtNoise,
    EnergyMLP,
    NoiseEnergyMLP,
    NormalizedEnergy,
    ScoreMLP,
    as_score,
)
from numpyro_score.objectives import DenoisingScoreMatching
from numpyro_score.persistence import _FILE
from numpyro_score.samplers import AnnealedParticles, Langevin
from numpyro_score.sde import VP, InTime
from numpyro_score.training import fit

KEY = jax.random.key(0)


def trained(network):
    """A network with weights that are not those of its constructor."""
    return jax.tree.map(
        lambda x: (
            x + 0.1 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
            if eqx.is_inexact_array(x)
            else x
        ),
        network,
    )


NETWORKS = {
    "energy": lambda: trained(EnergyMLP(3, width=8, key=KEY)),
    "score": lambda: trained(ScoreMLP(3, width=8, depth=3, activation=jax.nn.gelu, key=KEY)),
    "normalized": lambda: NormalizedEnergy(trained(EnergyMLP(3, width=4, key=KEY)), 2.0),
    "score of an energy": lambda: as_score(trained(EnergyMLP(3, width=4, key=KEY))),
    "in time": lambda: AtNoise(
        InTime(trained(NoiseEnergyMLP(3, width=4, key=KEY)), VP(max_rate=5.0)), 0.4
    ),
    "equinox": lambda: eqx.nn.MLP(
        3, "scalar", 8, 2, activation=jnp.tanh, final_activation=jax.nn.softplus, key=KEY
    ),
}
DISTRIBUTIONS = {
    "plain": lambda: EnergyDistribution(NETWORKS["energy"](), (3,)),
    "positive": lambda: EnergyDistribution(
        NETWORKS["energy"](), (3,), support=constraints.interval(0.0, 2.0), log_normalizer=1.5
    ),
    "simplex": lambda: EnergyDistribution(
        NETWORKS["equinox"](), (3,), support=constraints.simplex, sampler=Langevin(num_steps=3)
    ),
    "conditional": lambda: EnergyDistribution(
        trained(EnergyMLP(3, width=4, condition_size=2, key=KEY)), (3,), condition=jnp.ones((4, 2))
    ),
    "diffusion": lambda: DiffusionDistribution(
        InTime(trained(NoiseEnergyMLP(3, width=4, key=KEY)), VP()), VP(), (3,), num_steps=7
    ),
    "product": lambda: Product(
        [EnergyDistribution(NETWORKS["energy"](), (3,)), DISTRIBUTIONS["score"]()],
        weights=[2.0, -0.5],
        sampler=AnnealedParticles(num_levels=7),
    ),
    "mixture": lambda: Mixture(
        [
            EnergyDistribution(NETWORKS["energy"](), (3,), log_normalizer=1.0),
            Product([DISTRIBUTIONS["score"]()], log_normalizer=0.5),
        ],
        weights=[0.25, 0.75],
    ),
    "score": lambda: ScoreDistribution(
        NETWORKS["score"](), (3,), anchor=jnp.array([0.1, 0.2, 0.3]), num_nodes=5
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_come_back(name, tmp_path):
    network = NETWORKS[name]()
    save(tmp_path / "file", network)
    loaded = load(tmp_path / "file")
    assert type(loaded) is type(network)
    assert eqx.tree_equal(loaded, network)
    x = jnp.array([0.3, -0.2, 0.5])
    np.testing.assert_array_equal(loaded(x), network(x))
    assert eqx.tree_equal(load(tmp_path / "file", like=network), network)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_come_back(name, tmp_path):
    d = DISTRIBUTIONS[name]()
    save(tmp_path / "file", d)
    loaded = load(tmp_path / "file")
    assert type(loaded) is type(d)
    assert (loaded.batch_shape, loaded.event_shape) == (d.batch_shape, d.event_shape)
    assert loaded.normalized == d.normalized
    assert loaded.support == d.support
    x = jnp.array([0.2, 0.3, 0.5])
    np.testing.assert_array_equal(loaded.log_prob(x), d.log_prob(x))
    if isinstance(d.sampler, Langevin):
        np.testing.assert_array_equal(loaded.sample(KEY, (2,)), d.sample(KEY, (2,)))


def test_a_fit_in_another_process(tmp_path):
    result = fit(
        KEY,
        EnergyMLP(2, width=8, key=KEY),
        jax.random.normal(KEY, (200, 2)),
        DenoisingScoreMatching(0.3),
        num_steps=20,
        batch_size=32,
        progress_bar=False,
    )
    save(tmp_path / "network", result)
    d = EnergyDistribution(result.network, (2,), sampler=Langevin(num_steps=5))
    save(tmp_path / "distribution", d)
    code = """
import sys, jax, jax.numpy as jnp, numpyro_score
network, d = map(numpyro_score.load, sys.argv[1:])
x = jnp.array([0.3, -0.7])
for value in (network(x), d.log_prob(x), d.sample(jax.random.key(1))[0]):
    print(float(value).hex())
"""
    paths = [str(tmp_path / name) for name in ("network", "distribution")]
    told = subprocess.run(
        [sys.executable, "-c", code, *paths],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    x = jnp.array([0.3, -0.7])
    here = (result.network(x), d.log_prob(x), d.sample(jax.random.key(1))[0])
    assert told == [float(value).hex() for value in here]


def test_a_product_with_a_distribution_of_numpyro_needs_like(tmp_path):
    def product(mean):
        factor = dist.Normal(mean * jnp.ones(3), 1.0).to_event(1)
        return Product([EnergyDistribution(NETWORKS["energy"](), (3,)), factor])

    save(tmp_path / "file", product(2.0))
    with pytest.raises(LoadError, match=r"because a .*Independent.* is not of this package"):
        load(tmp_path / "file")
    x = jnp.array([0.2, 0.3, 0.5])
    loaded = load(tmp_path / "file", like=product(0.0))
    np.testing.assert_array_equal(loaded.log_prob(x), product(2.0).log_prob(x))


def test_what_is_not_of_this_package_needs_like(tmp_path):
    offset = jnp.arange(3.0)
    make = lambda p: (lambda p, x: jnp.sum((x - p) ** 2), p)  # noqa: E731
    save(tmp_path / "file", make(offset))
    with pytest.raises(LoadError, match=r"cannot build it, because .* is not of this package"):
        load(tmp_path / "file")
    loaded = load(tmp_path / "file", like=make(jnp.zeros(3)))
    assert loaded(jnp.ones(3)) == 2.0
    with pytest.raises(LoadError, match=r"has the shape \(3,\).*expected \(2,\)"):
        load(tmp_path / "file", like=make(jnp.zeros(2)))
    with pytest.raises(LoadError, match="holds a FunctionNetwork, and `like` is a EnergyMLP"):
        load(tmp_path / "file", like=NETWORKS["energy"]())


def test_another_architecture_is_refused(tmp_path):
    save(tmp_path / "file", NETWORKS["energy"]())
    for other in (
        EnergyMLP(3, width=9, key=KEY),
        EnergyMLP(3, width=8, depth=3, key=KEY),
        EnergyMLP(3, width=8, activation=jnp.tanh, key=KEY),
        NETWORKS["score"](),
    ):
        with pytest.raises(LoadError, match="of another architecture"):
            load(tmp_path / "file", like=other)


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        load(path)
    save(path, NETWORKS["energy"]())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadError, match="or is damaged"):
        load(path)
    altered = bytearray(whole)
    altered[len(whole) // 3] ^= 1
    path.write_bytes(bytes(altered))
    with pytest.raises(LoadError, match=r"altered|damaged"):
        load(path)
    np.savez(path.with_suffix(".npz"), x=np.zeros(3))
    with pytest.raises(LoadError, match=r"not written by numpyro_score.save"):
        load(path.with_suffix(".npz"))


def test_another_version_is_refused(tmp_path):
    leaves = [("a", jnp.zeros(2))]
    write_file(_FILE._replace(version=2), tmp_path / "file", leaves, {"tree": None})
    with pytest.raises(
        LoadError, match="has version 2 of the format, this package reads version 1"
    ):
        load(tmp_path / "file")


def test_arrays_named_by_the_order_in_a_process_are_refused(tmp_path):
    pair = (lambda p, x: jnp.sum(p * x), jnp.ones(3))
    save(tmp_path / "file", pair)
    leaves, header = read_file(_FILE, tmp_path / "file")
    older = {name: header[name] for name in ("class", "numpyro_score", "tree", "why")}
    write_file(_FILE, tmp_path / "file", [(x.path, x.value) for x in leaves], older)
    with pytest.raises(LoadError, match="by an older numpyro_score, whose names of arrays"):
        load(tmp_path / "file", like=pair)


@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
def test_numbers_of_numpy_come_back_as_numbers(tmp_path):
    network = EnergyMLP(np.int64(3), width=4, key=KEY)
    save(tmp_path / "file", network)
    loaded = load(tmp_path / "file", like=network)
    assert type(loaded.in_size) is int
    assert eqx.filter_jit(lambda n, x: n(x))(loaded, jnp.ones(3)) == 1.5
    scalars = [np.float32(0.5), np.dtype(jnp.bfloat16).type(2.0), np.True_, np.str_("a")]
    tree, arrays = describe(scalars)
    assert [node["value"] for node in tree["list"]] == [0.5, 2.0, True, "a"]
    assert arrays == []


def forge(path, old, new):
    leaves, header = read_file(_FILE, path)
    tree = json.loads(json.dumps(header["tree"]).replace(old, new))
    pairs = [(leaf.path, leaf.value) for leaf in leaves]
    extra = {name: header[name] for name in ("class", "numpyro_score")}
    write_file(_FILE, path, pairs, extra | {"tree": tree})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("numpyro_score.networks.mlp:EnergyMLP", "os:system", "of none of the packages"),
        ("numpyro_score.networks.mlp:EnergyMLP", "numpyro_score.networks.mlp:Gone", "not there"),
        ("numpyro_score.networks.mlp:EnergyMLP", "numpyro.infer:MCMC", "which is no network"),
        ("jax.nn:silu", "os:system", "names a function os:system, which there is not"),
        ("jax.nn:silu", "jax.nn:gone", "names a function jax.nn:gone"),
        ("in_size", "size", "has the fields"),
    ],
)
def test_a_file_that_names_something_else_runs_nothing(old, new, message, tmp_path):
    save(tmp_path / "file", NETWORKS["energy"]())
    forge(tmp_path / "file", old, new)
    with pytest.raises(LoadError, match=message):
        load(tmp_path / "file")


def test_no_pickle_inside(tmp_path):
    save(tmp_path / "file", DISTRIBUTIONS["simplex"]())
    with np.load(tmp_path / "file", allow_pickle=False) as file:
        assert all(file[name].dtype == np.uint8 for name in file.files)


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    save(path, NETWORKS["energy"]())

    def crash(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        save(path, NETWORKS["normalized"]())
    monkeypatch.undo()
    assert isinstance(load(path), EnergyMLP)


def test_what_cannot_be_saved():
    with pytest.raises(TypeError, match="a network must be"):
        save("nowhere", 3.0)
    assert {"save", "load", "LoadError"} <= set(numpyro_score.__all__)
