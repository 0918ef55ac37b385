"""Predictions of one and the same thing, and the times at which they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.sde import EDM, VE, VP, CosineVP, From, SubVP, convert, time_grid

SDES = [VE(0.1, 10.0), EDM(0.1, 10.0), VP(), CosineVP(), SubVP()]
EVERY = pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
KINDS = ("score", "noise", "denoised", "velocity")


def predictions(sde, t):
    """All four where data and noise are known: x₀ with probability 1."""
    clean, noise = jax.random.normal(jax.random.key(0), (2, 5))
    scale, std = sde.mean_scale(t), sde.marginal_std(t)
    known = {
        "denoised": clean,
        "noise": noise,
        "score": -noise / std,
        "velocity": scale * noise - std * clean,
    }
    return scale * clean + std * noise, known


@EVERY
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_every_prediction_turns_into_every_other(sde, source, target):
    for t in (0.2, 0.7):
        x, known = predictions(sde, t)
        found = convert(known[source], x, t, sde, source=source, target=target)
        np.testing.assert_allclose(found, known[target], rtol=1e-3, atol=1e-3)


def test_what_is_no_prediction_is_refused():
    x = jnp.ones(3)
    with pytest.raises(ValueError, match="source must be one of"):
        convert(x, x, 0.5, VP(), source="sigma", target="score")
    with pytest.raises(ValueError, match="target must be one of"):
        convert(x, x, 0.5, VP(), source="score", target="x0")
    with pytest.raises(ValueError, match=r"shape of x, \(3,\), got \(2,\)"):
        convert(jnp.ones(2), x, 0.5, VP(), source="score", target="noise")


@EVERY
def test_times_are_even_in_their_ruler(sde):
    rulers = {
        "log noise": lambda t: jnp.log(sde.marginal_std(t) / sde.mean_scale(t)),
        "karras": lambda t: (sde.marginal_std(t) / sde.mean_scale(t)) ** (1 / 7),
        "uniform": lambda t: t,
    }
    for spacing, ruler in rulers.items():
        times = time_grid(sde, 10, spacing=spacing)
        np.testing.assert_allclose(times[jnp.array([0, -1])], (sde.t_max, sde.t_min), rtol=1e-5)
        steps = np.diff(ruler(times))
        np.testing.assert_allclose(steps, steps.mean(), rtol=2e-2)


@pytest.mark.parametrize("late", [From(VE(), 0.9995), From(CosineVP(), 0.99499)])
def test_a_short_time_in_which_numbers_are_rounded_has_steps(late):
    steps = np.diff(time_grid(late, 10))
    np.testing.assert_allclose(steps, (late.t_min - late.t_max) / 10, rtol=0.1)


def test_a_noise_that_shrinks_has_no_times():
    class Back(VE):
        def marginal_std(self, t):
            return 1.0 - 0.5 * jnp.asarray(t)

    class Hill(VE):
        def marginal_std(self, t):
            return 1.0 + jnp.asarray(t) * (1.2 - jnp.asarray(t))

    for sde in (Back(), Hill()):
        with pytest.raises(ValueError, match="must grow with the time"):
            time_grid(sde, 10)
    with pytest.raises(ValueError, match="spacing must be one of"):
        time_grid(VE(), 10, spacing="cosine")
    with pytest.raises(ValueError, match="num_steps must be an integer of at least 1"):
        time_grid(VE(), 0)
