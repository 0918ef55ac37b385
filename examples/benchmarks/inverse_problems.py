"""Linear-Gaussian inverse problems with Gaussian-mixture priors: the posterior is known exactly.

Every method of this package draws from each posterior, with the exact score of the prior or with a
network that was trained on its draws. The table tells the sliced Wasserstein distance to exact
draws in units of that between two sets of exact draws (1 is as good as it gets), the published
distance (max-sliced Wasserstein-2 over 100 directions), the total variation between the weights of
modes, the error of log p(y), the time, and evaluations of the network.

    python examples/benchmarks/inverse_problems.py [FOLDER] [--json cells.json]

FOLDER holds instances as `.npz`: `prior_weights` (K,), `prior_means` (K, d), `prior_covariances`
(K or 1, d, d), `A`, `y`, `noise_variance`, `posterior_weights` (K,). Without one, instances of the
same families are made. With --json, cells that are there already are not run again.
"""

import argparse
import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from inverse_distances import distances
from inverse_instances import Instance, generate, read
from inverse_methods import METHODS, Task
from tqdm import tqdm

from numpyro_score.networks import NoiseEnergyMLP, NoiseScoreMLP
from numpyro_score.objectives import DiffusionScoreMatching
from numpyro_score.sde import VE, InTime, largest_distance
from numpyro_score.training import fit

#: Max-sliced Wasserstein-2, gabrielvc/benchopts_inverse_problem_diffusion_prior: DDRM, DPS,
#: MCGDiff of 32 and of 128 particles, on one instance that is none of ours.
PUBLISHED = {
    "paper_dx8_dy1": ("29.7 ± 2.0", "27.2 ± 2.4", "19.8 ± 2.4", "5.23 ± .59"),
    "paper_dx8_dy2": ("13.6 ± 1.5", "18.7 ± 1.2", "10.8 ± .7", "4.28 ± .42"),
    "paper_dx8_dy4": (".49 ± .07", "12.4 ± .9", "1.00 ± .15", ".18 ± .03"),
}
_AUTHORS = ("DDRM", "DPS", "MCGDiff, 32 particles", "MCGDiff, 128 particles")
_TRAINING_DRAWS, _MIN_STD = 100_000, 0.02
# Of the narrowest mode: with much less noise a network's score is mostly error.
_LEARNED_MIN_STD = 0.25
SOURCES = ("exact", "energy", "score")


def make_task(instance: Instance, source: str, num_draws: int, num_steps: int) -> Task:
    """Return the instance with the exact energy of its prior, or a network that learned it."""
    x = instance.prior.sample(0, _TRAINING_DRAWS)
    min_std = _MIN_STD if source == "exact" else _LEARNED_MIN_STD * instance.prior.narrowest
    sde = VE(min_std, largest_distance(x))
    scale = float(np.sqrt(x.var(0).mean()))
    if source == "exact":
        return Task(instance, instance.prior.energy(sde), sde, scale, num_draws)
    build = NoiseEnergyMLP if source == "energy" else NoiseScoreMLP
    network = build(x.shape[1], width=128, depth=4, key=jax.random.key(0))
    result = fit(
        jax.random.key(1),
        InTime(network, sde),
        jnp.asarray(x, float),
        DiffusionScoreMatching(sde),
        num_steps=num_steps,
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, num_steps)),
        progress_bar=False,
    )
    return Task(instance, result.network, sde, scale, num_draws)


def measure(task: Task, method: str, seed: int) -> dict:
    """Return one cell of the table."""
    begin = time.perf_counter()
    try:
        draws = METHODS[method](jax.random.key(seed), task)
    except FloatingPointError as error:
        return {"error": str(error)}
    cell = {"seconds": time.perf_counter() - begin, "evaluations": float(draws.evaluations)}
    cell |= distances(draws.x.astype(float), task.instance.posterior)
    if draws.log_evidence is not None:
        cell["log_evidence"] = draws.log_evidence - task.instance.log_evidence
    return cell


def write(path: Path | None, cells: dict) -> None:
    """Replace the file at once, so that an interrupt leaves the old one or the new."""
    if path is not None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(cells, indent=1))
        os.replace(new, path)


def show(cells: dict) -> None:
    """Print a table for each source of the score and each instance."""
    rows: dict = {}
    for key, cell in cells.items():
        source, name, method, _ = key.split(" | ")
        rows.setdefault((source, name), {}).setdefault(method, []).append(cell)
    for (source, name), methods in rows.items():
        score = "the exact score" if source == "exact" else f"a learned {source}"
        print(f"\n{name}, with {score}; mean over seeds, [least, most] of the ratio")
        print(
            f"{'method':24}{'distance':>10}{'ratio to exact draws':>24}{'max-sliced':>12}"
            f"{'weights':>9}{'log p(y)':>10}{'seconds':>9}{'evaluations':>13}"
        )
        floors = next(c for found in methods.values() for c in found if "floor" in c)
        print(f"{'two sets of exact draws':24}{floors['floor']:10.3f}{'1':>24}", end="")
        print(f"{floors['max_sliced_floor']:12.2f}")
        for method, found in methods.items():
            print(_row(method, found))
        for author, figure in zip(_AUTHORS, PUBLISHED.get(name, ()), strict=False):
            print(f"{author + ' (published)':24}{figure:>46}")


def _row(method: str, found: list[dict]) -> str:
    good = [cell for cell in found if "error" not in cell]
    if not good:
        return f"{method:24}  {found[0]['error'][:100]}"
    mean = {name: np.mean([cell[name] for cell in good]) for name in good[0]}
    ratios = [cell["ratio"] for cell in good]
    spread = f"{mean['ratio']:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
    evidence = f"{mean['log_evidence']:+.3f}" if "log_evidence" in mean else ""
    return (
        f"{method:24}{mean['distance']:10.3f}{spread:>24}{mean['max_sliced']:12.2f}"
        f"{mean['weights']:9.3f}{evidence:>10}{mean['seconds']:9.0f}{mean['evaluations']:13.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of instances; by default made here")
    parser.add_argument("--instances", nargs="+", help="only those whose names hold one of these")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--sources", nargs="+", default=["exact", "energy"], choices=SOURCES)
    parser.add_argument("--draws", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--training-steps", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="where cells are kept, and an old run goes on")
    options = parser.parse_args()
    cells = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    instances = list(read(options.folder) if options.folder else generate(0))
    wanted = options.instances or [""]
    instances = [i for i in instances if any(part in i.name for part in wanted)]
    tasks: dict = {}
    todo = [
        (source, instance, method, seed)
        for source in options.sources
        for instance in instances
        for method in options.methods
        for seed in range(options.seeds)
    ]
    with tqdm(todo, unit="cell") as bar:
        for source, instance, method, seed in bar:
            key = f"{source} | {instance.name} | {method} | {seed}"
            bar.set_postfix_str(key)
            if key in cells:
                continue
            if (source, instance.name) not in tasks:
                tasks = {
                    (source, instance.name): make_task(
                        instance, source, options.draws, options.training_steps
                    )
                }
            cells[key] = measure(tasks[source, instance.name], method, seed)
            write(options.json, cells)
    show(cells)


if __name__ == "__main__":
    main()
