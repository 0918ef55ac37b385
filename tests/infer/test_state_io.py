"""States in files: what comes back, in this process and another, and what is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from numpyro import infer as theirs

from numpyro_score._array_file import read_file, write_file
from numpyro_score.infer import (
    GHMC,
    MALA,
    MCLMC,
    MCMC,
    ULA,
    StateFileError,
    load_state,
    save_state,
)
from numpyro_score.infer._state_tree import STATE
from tests.infer.model import Y, model

OPTIONS = {"num_warmup": 20, "num_samples": 10, "progress_bar": False}
# What their states look like is all that is asked.
KERNELS = {
    "mala_dense": lambda: MALA(model, dense_mass=True),
    "mala_low_rank": lambda: MALA(model, max_rank=2),
    "ghmc": lambda: GHMC(model),
    "ula": lambda: ULA(model),
    "mclmc": lambda: MCLMC(model),
    "nuts": lambda: theirs.NUTS(model),
    "nuts_dense": lambda: theirs.NUTS(model, dense_mass=[("loc", "x")]),
    "barker": lambda: theirs.BarkerMH(model),
    "sa": lambda: theirs.SA(model),
}


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert x.dtype == jnp.asarray(y).dtype
        np.testing.assert_array_equal(*(map(numbers, (x, jnp.asarray(y)))))


def numbers(x):
    return random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def some_state(kernel):
    """A state as ``init`` makes it, with numbers of ours: nothing has to be compiled."""
    shapes = jax.eval_shape(lambda key: kernel.init(key, 20, None, (Y,), {}), random.key(0))

    def fill(like):
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return random.key(7)
        return jnp.arange(1, like.size + 1).reshape(like.shape).astype(like.dtype)

    return jax.tree.map(fill, shapes)


@pytest.mark.parametrize("name", KERNELS)
def test_a_state_comes_back_as_it_was(name, tmp_path):
    kernel = KERNELS[name]()
    state = some_state(KERNELS[name]())
    save_state(tmp_path / "state.npz", state)
    for like in (kernel, state):
        assert_same(load_state(tmp_path / "state.npz", like), state)


@pytest.mark.parametrize(
    "key", [random.PRNGKey(7), random.key(7), random.key(7, impl="rbg")], ids=str
)
def test_keys_and_numbers_of_every_kind(key, tmp_path):
    tree = {
        "key": random.split(key, 3),
        "half": jnp.ones(2, jnp.bfloat16),
        "flag": jnp.array(True),
        "none": None,
        "empty": jnp.zeros((0, 2)),
        "nested": ({"b": jnp.arange(3), "a": [jnp.float32(jnp.nan)]},),
    }
    save_state(tmp_path / "state.npz", tree)
    assert_same(load_state(tmp_path / "state.npz", tree), tree)


_OTHER_PROCESS = """
import sys
import numpy as np
from numpyro_score.infer import load_state
from tests.infer.test_state_io import MALA, MCMC, OPTIONS, Y, chains, model
mcmc = MCMC(MALA(model), **OPTIONS, **chains)
mcmc.post_warmup_state = load_state(sys.argv[1], mcmc.sampler)
mcmc.run(mcmc.post_warmup_state.rng_key, Y)
np.savez(sys.argv[2], **mcmc.get_samples())
"""
chains = {"num_chains": 2, "chain_method": "vectorized"}


def test_another_process_goes_on_to_the_bit(tmp_path):
    mcmc = MCMC(MALA(model), **OPTIONS, **chains)
    mcmc.warmup(random.key(0), Y)
    state, draws = str(tmp_path / "state.npz"), str(tmp_path / "draws.npz")
    save_state(state, mcmc.post_warmup_state)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _OTHER_PROCESS, state, draws],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "321"},
        timeout=300,
    )
    mcmc.run(mcmc.post_warmup_state.rng_key, Y)
    with np.load(draws) as other:
        for name, values in mcmc.get_samples().items():
            np.testing.assert_array_equal(other[name], values)


# -- refusals ----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    state = some_state(MALA(model))
    save_state(tmp_path / "state.npz", state)
    return tmp_path / "state.npz", state


def test_the_state_of_another_kernel_is_refused(saved):
    path, state = saved
    for kernel in (GHMC(model), ULA(model), theirs.NUTS(model)):
        with pytest.raises(StateFileError, match=f"no state of {type(kernel).__name__}"):
            load_state(path, kernel)
    renamed = {"w" if name == "x" else name: value for name, value in state.z.items()}
    with pytest.raises(StateFileError, match=r"lacks .*'w'.* and has .*'x'"):
        load_state(path, state._replace(z=renamed))
    with pytest.raises(StateFileError, match=r"\.z\['x'\] has the shape \(2,\).*expected \(3,\)"):
        load_state(path, state._replace(z=state.z | {"x": jnp.zeros(3)}))


def test_a_damaged_file_is_refused(saved):
    path, _ = saved
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(StateFileError, match="damaged"):
            load_state(path, MALA(model))
    for at in range(200, len(content), len(content) // 20):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            with_a_flip = load_state(path, MALA(model))
        except StateFileError:
            continue
        # What zip files hold besides their contents (times, attributes) may differ.
        path.write_bytes(content)
        assert_same(with_a_flip, load_state(path, MALA(model)))


def rewritten(path, change):
    """Write the header again, so that the zip file itself has nothing to object to."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays["header"].tobytes())
    change(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.write_bytes(buffer.getvalue())


def test_an_altered_or_foreign_file_is_refused(saved):
    path, _ = saved
    content = path.read_bytes()

    def other_value(header, arrays):
        arrays["leaf_00001"] = arrays["leaf_00001"] ^ 1

    def other_class(header, arrays):
        header["class"] = "numpyro_score.infer.ula:ULAState"

    for change, what in [
        (lambda header, arrays: header.update(version=2), "version 2 .* reads version 1"),
        (lambda header, arrays: header.update(format="other"), "not written by save_state"),
        (other_value, "altered"),
        (other_class, "altered"),
    ]:
        path.write_bytes(content)
        rewritten(path, change)
        with pytest.raises(StateFileError, match=what):
            load_state(path, MALA(model))
    np.savez(path, draws=np.zeros(3))
    with pytest.raises(StateFileError, match="was not written by save_state"):
        load_state(path, MALA(model))


def test_reading_imports_nothing_that_the_file_chose(saved):
    path, _ = saved
    leaves, header = read_file(STATE, path)

    def forge(old, new):
        tree = json.loads(json.dumps(header["tree"]).replace(old, new))
        pairs = [(leaf.path, leaf.value) for leaf in leaves]
        write_file(STATE, path, pairs, {"tree": tree, "class": header["class"]})

    forge("numpyro_score.infer._warmup:AdaptState", "antigravity:AdaptState")
    with pytest.raises(StateFileError, match="neither this package nor the kernel's"):
        load_state(path, MALA(model))
    assert "antigravity" not in sys.modules
    forge("numpyro_score.infer._warmup:AdaptState", "numpyro_score.infer.mala:MALA")
    with pytest.raises(StateFileError, match="no named tuple"):
        load_state(path, MALA(model))
    forge("numpyro_score.infer._warmup:AdaptState", "numpyro_score.infer._warmup:OldState")
    with pytest.raises(StateFileError, match="not there any more"):
        load_state(path, MALA(model))


def test_double_precision_asks_for_it(tmp_path):
    with jax.enable_x64(True):
        save_state(tmp_path / "state.npz", {"x": jnp.zeros(2)})
    with pytest.raises(StateFileError, match="jax_enable_x64"):
        load_state(tmp_path / "state.npz", {"x": jnp.zeros(2)})
