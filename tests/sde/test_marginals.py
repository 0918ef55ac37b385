"""The marginals solve the equations of the diffusion that they are said to belong to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_score.sde import EDM, VE, VP, CosineVP, SubVP

SDES = {
    "ve": VE(0.1, 10.0),
    "edm": EDM(0.01, 10.0),
    "vp": VP(),
    "cosine": CosineVP(),
    "sub-vp": SubVP(),
}
EVERY = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


def residuals(sde, t, diffusion):
    """α' - c α and (σ²)' - 2 c σ² - g², relative to g²."""
    scale_rate = jax.vmap(jax.grad(sde.mean_scale))(t)
    variance_rate = jax.vmap(jax.grad(lambda t: sde.marginal_std(t) ** 2))(t)
    rate, variance = sde.drift_rate(t), sde.marginal_std(t) ** 2
    noise = diffusion(t) ** 2
    return (
        scale_rate - rate * sde.mean_scale(t),
        (variance_rate - 2 * rate * variance - noise) / noise,
    )


@EVERY
def test_marginals_solve_the_moment_equations(sde):
    t = jnp.linspace(sde.t_min + 0.01, sde.t_max, 50)
    mean, variance = residuals(sde, t, sde.diffusion)
    np.testing.assert_allclose(mean, 0.0, atol=1e-4)
    np.testing.assert_allclose(variance, 0.0, atol=2e-3)
    # Noise of another size is another diffusion.
    assert np.abs(residuals(sde, t, lambda t: 1.1 * sde.diffusion(t))[1]).max() > 0.1


@EVERY
def test_time_begins_at_the_data_and_ends_in_noise(sde):
    begin, end = jnp.asarray(sde.t_min), jnp.asarray(sde.t_max)
    assert abs(sde.mean_scale(begin) - 1) < 1e-3
    assert sde.marginal_std(begin) < 0.02 * sde.marginal_std(end)
    prior = sde.prior((2, 3))
    assert prior.event_shape == (2, 3)
    np.testing.assert_allclose(prior.variance, sde.marginal_std(end) ** 2)
    np.testing.assert_allclose(sde.drift(jnp.ones(3), end), sde.drift_rate(end))


@EVERY
def test_a_path_of_the_diffusion_has_the_marginals(sde):
    """Euler–Maruyama from one point, against α and σ."""
    num_steps, num_paths, x0 = 2_000, 4_000, 2.0
    times = jnp.linspace(sde.t_min, 0.6, num_steps + 1)
    dt = times[1] - times[0]

    def step(x, inputs):
        t, key = inputs
        noise = jax.random.normal(key, x.shape)
        return x + sde.drift(x, t) * dt + sde.diffusion(t) * jnp.sqrt(dt) * noise, None

    keys = jax.random.split(jax.random.key(0), num_steps)
    first = jax.random.normal(jax.random.key(1), (num_paths,))
    start = sde.mean_scale(times[0]) * x0 + sde.marginal_std(times[0]) * first
    x = jax.jit(lambda x: jax.lax.scan(step, x, (times[:-1], keys))[0])(start)
    std = float(sde.marginal_std(times[-1]))
    mean = float(sde.mean_scale(times[-1])) * x0
    assert abs(float(x.mean()) - mean) < 5 * std / np.sqrt(num_paths) + 0.005 * x0
    assert abs(float(x.std()) / std - 1) < 5 / np.sqrt(2 * num_paths) + 0.005


@EVERY
def test_diffusions_are_values(sde):
    assert hash(sde) == hash(type(sde)(**vars(sde)))
    assert sde == type(sde)(**vars(sde))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VE(1.0, 0.1), "min_std must be below max_std"),
        (lambda: VE(0.0, 0.1), "min_std must be a finite number above 0"),
        (lambda: VP(-1.0), "min_rate must be a finite number above 0"),
        (lambda: VP(t_min=0.0), "t_min must be a finite number above 0"),
        (lambda: CosineVP(t_max=1.0), "t_max must be below 1"),
        (lambda: EDM(2.0, 1.0), "min_std must be below max_std"),
        (lambda: EDM(log_std=0.0), "log_std must be a finite number above 0"),
        (lambda: CosineVP(offset=0.0), "offset must be a finite number above 0"),
    ],
)
def test_numbers_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
