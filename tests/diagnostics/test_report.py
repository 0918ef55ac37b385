"""``report``: a healthy run raises nothing; a stuck chain, a biased kernel and few draws do."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.infer
import pytest
from numpyro.infer import MCMC

from numpyro_score.diagnostics import report
from numpyro_score.diagnostics._chain_findings import mixing
from numpyro_score.diagnostics._kernel_findings import kernel_findings
from numpyro_score.infer import MALA, MCLMC, SGLD, ULA, TemperedSMC

KEY = jax.random.key(11)
NUM_CHAINS, SIZE = 4, 3
STEIN = "Stein test (p-value)"
SCALE = "scale: mean of -z·score / d"


def potential(z):
    return 0.5 * jnp.sum(z**2) + 0.1 * jnp.sum(z**4)


def run(kernel, num_samples=1_000, num_warmup=300, start=None, **options):
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    if start is None and kernel.model is None:
        start = jnp.zeros((NUM_CHAINS, SIZE))
    mcmc.run(KEY, init_params=start, **options)
    return mcmc


def names_of(rows, passed):
    return {row.name for row in rows if row.passed is passed}


def test_a_healthy_run_raises_nothing_and_is_all_told(capsys):
    table = report(run(MALA(potential_fn=potential)))
    assert all(row.passed is True for row in table), table
    assert {"R-hat", "ESS (bulk)", "ESS (tail)", "acceptance", SCALE, STEIN} <= {
        row.name for row in table
    }
    assert capsys.readouterr().out.strip() == repr(table)
    assert "4 × 1,000 draws" in repr(table)


def test_kernels_of_numpyro_are_reported_as_well():
    def model():
        numpyro.sample("x", dist.Gamma(3.0 * jnp.ones(SIZE), 1.0).to_event(1))

    table = report(run(numpyro.infer.NUTS(model), 500), verbose=False)
    assert all(row.passed is True for row in table), table


@pytest.mark.statistics
@pytest.mark.parametrize("step_size", [1.0, 0.5, 0.02])
def test_a_large_step_of_ula_is_caught_where_r_hat_sees_nothing(step_size):
    """On a normal, variances are too large by 1 / (1 - ε/2): twofold at ε = 1, 1% at .02."""
    kernel = ULA(
        potential_fn=lambda z: 0.5 * jnp.sum(z**2),
        step_size=step_size,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    table = report(run(kernel, 20_000 if step_size < 0.1 else 2_000, 0), verbose=False)
    assert table["R-hat"].passed
    assert table["ESS (bulk)"].passed
    row = table["acceptance, had it a test"]
    assert row.passed is None
    assert 'extra_fields=("energy_error",)' in row.advice
    scale = table[SCALE]
    assert abs(scale.value - 1 / (1 - step_size / 2)) < 5 * scale.error
    assert scale.passed is table.passed is (step_size < 0.1)
    if step_size != 0.5:  # too few draws for a test of all of the density
        assert table[STEIN].passed is (step_size < 0.1)


def test_what_ula_collected_is_used():
    kernel = ULA(potential_fn=potential, step_size=0.8, adapt_step_size=False)
    mcmc = run(kernel, 200, 0, extra_fields=("energy_error",))
    rows = kernel_findings(mcmc, mcmc.get_extra_fields(group_by_chain=True))
    assert "acceptance, had it a test" in names_of(rows, False)


def test_one_stuck_chain_is_caught():
    """A step of z⁴ that is right at 0 overshoots from 60, and is never accepted."""
    start = jnp.zeros((NUM_CHAINS, SIZE)).at[2].set(60.0)
    kernel = MALA(
        potential_fn=potential, step_size=0.3, adapt_step_size=False, adapt_mass_matrix=False
    )
    table = report(run(kernel, 1_000, 0, start), verbose=False)
    assert {"share of steps that moved", "R-hat", "ESS (bulk)"} <= names_of(table, False)
    assert "chain 2 did not move" in repr(table)


# -- one row at a time -----------------------------------------------------------------------------


def independent(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_r_hat_is_judged_by_what_chance_makes_of_so_few_draws():
    """In 20 runs of 100 independent draws, 30 components each: above 1.01, and not failed."""
    largest = []
    for seed in range(20):
        rows = {row.name: row for row in mixing({"x": independent((4, 100, 30), seed)}, True).rows}
        largest.append(rows["R-hat"].value)
        assert rows["R-hat"].passed
    assert max(largest) > 1.01
    apart = independent((4, 1_000, 2))
    apart[0] += 0.5
    rows = {row.name: row for row in mixing({"x": apart}, True).rows}
    assert rows["R-hat"].passed is False
    assert rows["R-hat"].value > 1.01


def test_one_chain_is_compared_with_itself():
    rows = mixing({"x": independent((1, 400, 2))}, True).rows
    assert all(row.passed is True for row in rows)
    drifts = independent((1, 400, 2)) + np.linspace(0, 3, 400)[:, None]
    assert "R-hat" in names_of(mixing({"x": drifts}, True).rows, False)


def test_draws_that_are_not_finite_constant_or_few():
    draws = independent((4, 100, 2))
    draws[1, 3, 0] = np.nan
    rows = mixing({"x": draws}, True).rows
    assert names_of(rows, False) == {"draws that are not finite"}
    assert names_of(rows, None) == {"R-hat", "ESS (bulk)", "ESS (tail)"}
    rows = mixing({"x": np.ones((2, 100, 2))}, True).rows
    assert "share of steps that moved" in names_of(rows, False)
    assert "R-hat" in names_of(rows, None)
    rows = mixing({"x": independent((2, 3, 2))}, True).rows
    assert "3 draws of each chain are too few" in {row.advice for row in rows}


def fake(kernel, **state):
    """What :func:`kernel_findings` reads of a run."""
    return SimpleNamespace(
        sampler=kernel, last_state=SimpleNamespace(**state), num_samples=1_000, num_chains=2
    )


def normal_model():
    numpyro.sample("x", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("kernel", "accept_prob", "passed"),
    [
        (MALA(normal_model), [0.57, 0.6], True),
        (MALA(normal_model), [0.57, 0.1], False),
        (MALA(normal_model, adapt_step_size=False), [0.9, 0.95], True),
        (MALA(normal_model, adapt_step_size=False), [0.9, 0.001], False),
        (numpyro.infer.NUTS(normal_model), [0.85, 0.99], True),
        (numpyro.infer.SA(normal_model), None, None),
    ],
)
def test_acceptance_is_compared_with_its_target(kernel, accept_prob, passed):
    state = {} if accept_prob is None else {"mean_accept_prob": jnp.array(accept_prob)}
    rows = {row.name: row for row in kernel_findings(fake(kernel, **state), {})}
    assert rows["acceptance"].passed is passed


def test_divergences_swaps_noise_and_energy_are_judged():
    some = {"diverging": np.arange(2_000).reshape(2, -1) < 3}
    nuts, mala = numpyro.infer.NUTS(normal_model), MALA(normal_model)
    diverged = "share of steps that diverged"
    assert diverged in names_of(kernel_findings(fake(nuts), some), False)
    assert diverged in names_of(kernel_findings(fake(mala), some), True)
    assert diverged in names_of(kernel_findings(fake(mala), {}), None)

    def swaps(rate, trips):
        journeys = SimpleNamespace(round_trips=jnp.array([trips, 90]))
        rates = jnp.array([[0.5, 0.4], [0.4, rate]])
        run = fake(mala, mean_swap_accept_prob=rates, journeys=journeys)
        return kernel_findings(run, some)

    names = {"least rate of swaps", "round trips (least chain)"}
    assert names <= names_of(swaps(0.3, 50), True)
    assert names <= names_of(swaps(0.01, 0), False)
    assert "levels 1 and 2 are too far apart" in {row.advice.split(":")[0] for row in swaps(0.0, 0)}

    mclmc = MCLMC(normal_model)
    for variance, passed in ((1e-3, True), (0.1, False)):
        rows = kernel_findings(fake(mclmc, energy_variance=jnp.array([variance, 1e-4])), some)
        assert "energy variance" in names_of(rows, passed)
    for ratio, passed in ((0.01, True), (3.0, False)):
        rows = kernel_findings(
            fake(SGLD(normal_model, step_size=0.1), noise_ratio=jnp.array(ratio)), some
        )
        assert "noise of minibatches" in names_of(rows, passed)


@pytest.mark.statistics
def test_particles_are_reported():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    smc = TemperedSMC(model, 500, progress_bar=False)
    smc.run(KEY, 1.0)
    table = report(smc, verbose=False)
    assert all(row.passed is True for row in table), table
    assert "error of the log evidence" in {row.name for row in table}
    assert "ESS (bulk)" not in {row.name for row in table}


def test_a_score_that_cannot_be_had_is_told():
    def minibatches(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(y), subsample_size=5) as rows:
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[rows])

    mcmc = MCMC(SGLD(minibatches, step_size=1e-3), num_warmup=0, num_samples=50, progress_bar=False)
    mcmc.run(KEY, jnp.zeros(20))
    table = report(mcmc, verbose=False)
    assert table[STEIN].passed is table[SCALE].passed is None
    assert "subsamples 5 of 20 rows" in table[STEIN].advice


def test_refusals():
    with pytest.raises(RuntimeError, match="has not run"):
        report(MCMC(MALA(normal_model), num_warmup=1, num_samples=1))
    with pytest.raises(TypeError, match="got dict"):
        report({})
