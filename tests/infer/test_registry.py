"""Kernels by name, and kernels made of anybody's algorithm."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path

import jax
import pytest
from blackjax.mcmc import barker, ghmc, hmc, mala, random_walk
from jax import random

from numpyro_score import infer
from numpyro_score.infer import (
    MALA,
    available_kernels,
    get_kernel,
    kernel_from_algorithm,
    register_kernel,
    registry,
)
from tests.infer.test_statistics import assert_model_recovered, exact_model, run

EXAMPLE = Path(__file__).parents[2] / "examples" / "01_own_kernel.py"


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setattr(registry, "_KERNELS", dict(registry._KERNELS))


class NoStepSize:
    init = staticmethod(mala.init)

    @staticmethod
    def build_kernel():
        return lambda rng_key: None


# -- by name -----------------------------------------------------------------------------------


def test_every_kernel_class_that_is_exported_is_registered():
    bases = {infer.BlackJAXKernel, infer.PreconditionedKernel, infer.AlgorithmKernel}
    exported = {
        cls
        for cls in vars(infer).values()
        if inspect.isclass(cls) and issubclass(cls, infer.BlackJAXKernel)
    }
    abstract = {cls for cls in exported if inspect.isabstract(cls)} | bases
    assert {i.kernel for i in available_kernels().values()} >= exported - abstract


def test_what_is_available_is_a_table_of_a_line_each():
    kernels = available_kernels()
    lines = str(kernels).splitlines()
    assert len(lines) == len(kernels) + 1
    for line, (name, info) in zip(lines[1:], kernels.items(), strict=True):
        assert line.startswith(name)
        assert info.description in line
        assert info.reference in line
        assert set(info.needs) <= set(registry.NEEDS)
    kernels.clear()
    assert available_kernels(), "a copy"


def test_an_unknown_name_lists_the_near_ones():
    with pytest.raises(KeyError, match=r"'male'.* Did you mean 'mala'.* There are \['adjusted_"):
        get_kernel("male")
    assert get_kernel("mala") is MALA


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "mala", "kernel": MALA}, ValueError, "'mala' is registered already"),
        ({"kernel": MALA, "needs": ["luck"]}, ValueError, r"got \['luck'\]"),
        ({"kernel": MALA, "num_steps": 3}, TypeError, r"\['num_steps'\] are for algorithms"),
        ({"kernel": 3}, TypeError, r"3 lacks \['init', 'build_kernel'\]"),
        ({"kernel": hmc, "length": 3}, TypeError, r"not \['length'\]"),
        ({"kernel": NoStepSize}, TypeError, r"takes no step_size to be tuned, only \['rng_key'\]"),
    ],
)
def test_what_cannot_be_registered(arguments, error, message):
    with pytest.raises(error, match=message):
        register_kernel(**{"name": "mine", "description": "", **arguments})
    assert "mine" not in available_kernels()


# -- of an algorithm ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (mala, {}),
        (barker, {"target_accept_prob": 0.4}),
        (hmc, {"target_accept_prob": 0.8, "num_integration_steps": 2}),
        # Remembers a momentum and a slice from step to step.
        (
            ghmc,
            {"target_accept_prob": 0.9, "momentum_inverse_scale": 1.0, "alpha": 0.5, "delta": 0.25},
        ),
    ],
)
def test_an_algorithm_recovers_the_target(algorithm, options):
    kernel = kernel_from_algorithm("Mine", algorithm, **options)
    assert_model_recovered(run(kernel(exact_model, dense_mass=True), num_samples=5000))


def test_the_example_s_own_algorithm_recovers_the_target():
    runpy.run_path(str(EXAMPLE), run_name="example")
    kernel = get_kernel("random_walk")(exact_model, dense_mass=True)
    assert_model_recovered(run(kernel, num_samples=20_000))


def test_the_example_registers_in_fewer_than_fifteen_lines():
    lines = EXAMPLE.read_text().splitlines()
    start, end = lines.index("    def build_kernel(self):"), lines.index("register_kernel(")
    assert len([line for line in lines[start:end] if line.strip()]) < 15


def test_a_state_without_a_gradient_is_told():
    class NoGradient:
        init = staticmethod(random_walk.init)

        @staticmethod
        def build_kernel():
            return lambda rng_key, state, logdensity_fn, step_size: (state, None)

    kernel = kernel_from_algorithm("Walk", NoGradient())(potential_fn=lambda z: z @ z)
    with pytest.raises(TypeError, match=r"RWState lacks \['logdensity_grad'\]"):
        kernel.init(random.key(0), 10, jax.numpy.zeros(2))
