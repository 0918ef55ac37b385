"""What tells the checkpoint of one kernel from that of another."""

from __future__ import annotations

import inspect
import json

import jax
import jax.numpy as jnp
import pytest
from blackjax.mcmc import hmc
from jax import random
from numpyro import infer as theirs

from numpyro_score.infer import MALA, MCLMC, kernel_from_algorithm
from numpyro_score.infer._kernel_options import kernel_options
from tests.infer.model import Y, model

OTHER = {
    MALA: {
        "step_size": 0.2,
        "adapt_step_size": False,
        "adapt_mass_matrix": False,
        "inverse_mass_matrix": jnp.ones(4),
        "dense_mass": True,
        "max_rank": 2,
        "target_accept_prob": 0.6,
        "adaptation": "pooled",
        "path": "local",
    },
    MCLMC: {"L": 1.0, "step_size": 0.1, "desired_energy_var": 1e-3},
    theirs.NUTS: {"max_tree_depth": (5, 6), "dense_mass": [("loc", "x")], "step_size": 0.5},
}


@pytest.mark.parametrize("kernel", OTHER)
def test_each_option_tells_kernels_apart(kernel):
    assert set(OTHER[kernel]) <= set(inspect.signature(kernel).parameters)
    seen = [kernel_options(kernel(model))]
    seen += [kernel_options(kernel(model, **{k: v})) for k, v in OTHER[kernel].items()]
    texts = [json.dumps(options) for options in seen]
    assert len(set(texts)) == len(texts)
    assert json.dumps(kernel_options(kernel(model))) == texts[0]
    assert " at 0x" not in "".join(texts), "an address is another one in the next process"


def test_blocks_nodes_and_algorithms_tell_kernels_apart():
    def gibbs(step_size):
        return theirs.Gibbs([(MALA(model, step_size=step_size), ["loc"]), (MALA(model), None)])

    def own(num_steps):
        return kernel_from_algorithm("Own", hmc, num_integration_steps=num_steps)(model)

    def local(num_nodes):
        return MALA(model, path="local", path_nodes=num_nodes)

    for make, one, other in [(gibbs, 0.1, 0.2), (own, 1, 2), (local, 2, 3)]:
        assert kernel_options(make(one)) == kernel_options(make(one))
        assert kernel_options(make(one)) != kernel_options(make(other))


@pytest.mark.parametrize("kernel", [MALA, theirs.NUTS])
def test_a_kernel_that_has_run_is_the_same(kernel):
    used = kernel(model)
    jax.eval_shape(lambda key: used.init(key, 20, None, (Y,), {}), random.key(0))
    assert kernel_options(used) == kernel_options(kernel(model))
