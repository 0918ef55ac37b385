"""Learn one density with every objective, and see which worked.

Two moons whose density is known, and handwritten digits; one energy network, one training loop, and
the objective is the only argument that changes. Beside them the families that are normalized by
construction: a flow, an autoregressive density and a VAE. The figures show the densities, or draws;
the table tells how far each is from the truth, or how likely held-out digits are. The likelihood of
the VAE is its own estimate, from a few draws that all rows share: it may come out above the truth.

    python examples/02_objectives.py [--quick] [--data moons digits] [--steps 4000] [--only dsm]
"""

import argparse
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from problems import PROBLEMS, Problem

from numpyro_score.diagnostics import kernel_stein_discrepancy
from numpyro_score.distributions import (
    DensityDistribution,
    EnergyDistribution,
    estimate_log_normalizer,
)
from numpyro_score.networks import DensityNetwork
from numpyro_score.training import fit

COLUMNS = ("seconds", "score error", "KSD", "log-likelihood", "± (AIS)", "short of truth")


def normalize(network, problem: Problem) -> tuple[EnergyDistribution, float]:
    """Return what was learned as a normalized distribution, and the error of its log Z."""
    event_shape = problem.train.shape[1:]
    if isinstance(network, DensityNetwork):
        return DensityDistribution(network, event_shape), 0.0
    learned = EnergyDistribution(network, event_shape)
    estimate = estimate_log_normalizer(
        learned, jax.random.key(5), num_temperatures=problem.num_temperatures
    )
    return learned.with_log_normalizer(estimate.log_normalizer), float(estimate.standard_error)


def assess(learned: EnergyDistribution, problem: Problem) -> dict[str, float]:
    """Return columns of the table; those that need the truth only where it is known."""
    held_out, truth = problem.held_out, problem.truth
    found = learned.score(held_out)
    row = {
        "KSD": kernel_stein_discrepancy(found, held_out),
        "log-likelihood": learned.log_prob(held_out).mean(),
    }
    if truth is not None:
        score = jax.vmap(jax.grad(truth.log_prob))(held_out)
        off = ((found - score) ** 2).sum(1).mean() / (score**2).sum(1).mean()
        short = truth.log_prob(held_out).mean() - row["log-likelihood"]
        row |= {"score error": jnp.sqrt(off), "short of truth": short}
    return row


def tell(name: str, row: dict[str, float]) -> None:
    cells = (
        f"{float(row[c]):{len(c) + 3}.3f}" if c in row else " " * (len(c) + 3) for c in COLUMNS
    )
    print(f"{name:22}{''.join(cells)}", flush=True)


def compare(problem: Problem, num_steps: int, only: list[str] | None, figure_file: str) -> None:
    names = only or list(problem.contenders)
    print(f"{'':22}{''.join(f'   {column}' for column in COLUMNS)}")
    num_rows = -(-(len(names) + 1) // 5)
    size = (10, (1.75 if problem.truth is not None else 2.2) * num_rows)
    figure, axes = plt.subplots(num_rows, 5, figsize=size, layout="constrained", squeeze=False)
    panels = iter(axes.flat)
    if problem.truth is not None:
        ax = next(panels)
        problem.show(ax, problem.truth)
        ax.set_title("truth", fontsize=9)
    for name in names:
        network, objective = problem.contenders[name]
        begin = time.perf_counter()
        result = fit(
            jax.random.key(2),
            network,
            problem.train,
            objective,
            num_steps=num_steps,
            learning_rate=3e-3,
            progress_bar=False,
        )
        row = {"seconds": time.perf_counter() - begin}
        learned, row["± (AIS)"] = normalize(result.network, problem)
        tell(name, row | assess(learned, problem))
        ax = next(panels)
        problem.show(ax, learned)
        ax.set_title(name, fontsize=9)
    for ax in axes.flat:
        ax.axis("off")
    figure.savefig(figure_file, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--only", nargs="+", help="contenders; by default all")
    parser.add_argument("--quick", action="store_true", help="a rehearsal with one of them")
    options = parser.parse_args()
    if options.quick:
        options.data, options.steps, options.only = ["moons"], 50, ["dsm"]
    for name in options.data:
        print(f"\n{name}")
        problem = PROBLEMS[name]()._replace(**({"num_temperatures": 10} if options.quick else {}))
        compare(problem, options.steps, options.only, f"objectives_{name}.png")


if __name__ == "__main__":
    main()
