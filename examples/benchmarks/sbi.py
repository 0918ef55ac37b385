"""Simulation-based inference: C2ST of learned conditional diffusions on tasks of sbibm.

A diffusion learns p(θ | y) from simulations, for all observations at once. For each of three
observations a classifier is asked to tell its draws from those of the reference posterior: its
accuracy (C2ST) is 0.5 where it cannot. Beside it are the published means of NPE, NLE and SNPE at
the same number of simulations (Lueckmann et al., 2021).

    python examples/benchmarks/sbi.py FOLDER [--simulations 1000 10000] [--json cells.json]

FOLDER holds `tasks.py` (prior and simulator of each task) and `TASK_K.npz`, with `observation`
and `reference` draws.
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from numpyro_score.diagnostics import classifier_two_sample_test
from numpyro_score.distributions import DiffusionDistribution
from numpyro_score.networks import NoiseScoreMLP
from numpyro_score.objectives import DiffusionScoreMatching
from numpyro_score.sde import VE, InTime, largest_distance
from numpyro_score.training import fit

#: Mean C2ST of NPE, NLE and SNPE at 1,000 and 10,000 simulations.
PUBLISHED = {
    "two_moons": {1_000: (0.725, 0.773, 0.643), 10_000: (0.606, 0.713, 0.554)},
    "gaussian_mixture": {1_000: (0.731, 0.812, 0.697), 10_000: (0.661, 0.731, 0.583)},
    "gaussian_linear": {1_000: (0.694, 0.650, 0.652), 10_000: (0.552, 0.555, 0.544)},
}
_SMALLEST, _HELD_OUT_ROWS = 0.003, 4_000


def load_tasks(folder: Path):
    """Return the module with the tasks."""
    spec = importlib.util.spec_from_file_location("tasks", folder / "tasks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def learn(theta, y, options, seed: int):
    """Return a network of p(θ | y) at all times of a diffusion, and the diffusion."""
    sde = VE(_SMALLEST * float(jnp.std(theta, 0).mean()), largest_distance(theta))
    network = NoiseScoreMLP(
        theta.shape[1],
        width=options.width,
        depth=4,
        condition_size=y.shape[1],
        key=jax.random.key(seed),
    )
    rate = optax.cosine_decay_schedule(2e-3, options.steps)
    # Rows that are held out are few and their loss is noisy: each is asked about many times.
    num_held_out = len(theta) // 10
    times = -(-_HELD_OUT_ROWS // num_held_out)
    held_out = tuple(jnp.tile(a[:num_held_out], (times, 1)) for a in (theta, y))
    result = fit(
        jax.random.key(seed + 1),
        InTime(network, sde),
        theta[num_held_out:],
        DiffusionScoreMatching(sde),
        condition=y[num_held_out:],
        validation_data=held_out,
        num_steps=options.steps,
        optimizer=optax.adamw(rate, weight_decay=options.decay),
        progress_bar=options.bar,
    )
    return result.network, sde


def draw(network, sde, y, task, key, num: int):
    """Return draws of the posterior within the support of the prior, as NPE returns them."""
    posterior = DiffusionDistribution(network, sde, (task.dim,), condition=y)
    found = np.zeros((0, task.dim))
    for again in jax.random.split(key, 10):
        draws = posterior.sample(again, (num,))
        inside = np.asarray(task.prior.support(draws))
        found = np.concatenate([found, np.asarray(draws)[inside]])
        if len(found) >= num:
            return found[:num]
    raise RuntimeError(f"of {10 * num} draws only {len(found)} are within the prior's support.")


def measure(tasks, name: str, num_simulations: int, options, seed: int) -> dict:
    """Return the seconds of training and the C2ST of each observation."""
    task = tasks.TASKS[name]
    keys = jax.random.split(jax.random.key(seed), 2 + options.observations)
    theta = task.prior.sample(keys[0], (num_simulations,))
    y = task.simulate(keys[1], theta)
    begin = time.perf_counter()
    network, sde = learn(theta, y, options, seed)
    cell: dict = {"seconds": time.perf_counter() - begin, "c2st": []}
    for k, key in enumerate(keys[2:], 1):
        data = tasks.load(name, k)
        reference = np.asarray(data["reference"], float)
        observation = jnp.asarray(np.ravel(data["observation"]), float)
        draws = draw(network, sde, observation, task, key, len(reference))
        cell["c2st"].append(float(classifier_two_sample_test(key, draws, reference)))
    return cell


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", nargs="+", default=["two_moons", "gaussian_mixture"])
    parser.add_argument("--simulations", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--observations", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--decay", type=float, default=1e-2)
    parser.add_argument("--json", type=Path, help="where cells are kept, and an old run goes on")
    parser.add_argument("--bar", action="store_true", help="show the training")
    options = parser.parse_args()
    tasks = load_tasks(options.folder)
    cells = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    print(f"{'task':20}{'simulations':>12}{'C2ST':>8}  {'of each observation':24}", end="")
    print(f"{'seconds':>8}   NPE   NLE  SNPE")
    for name in options.tasks:
        for num in options.simulations:
            for seed in range(options.seeds):
                key = f"{name} | {num} | {seed}"
                if key not in cells:
                    cells[key] = measure(tasks, name, num, options, 100 * seed)
                if options.json:
                    options.json.write_text(json.dumps(cells, indent=1))
                cell = cells[key]
                each = ", ".join(f"{value:.3f}" for value in cell["c2st"])
                theirs = PUBLISHED.get(name, {}).get(num, ())
                print(f"{name:20}{num:12,}{np.mean(cell['c2st']):8.3f}  {each:24}", end="")
                print(
                    f"{cell['seconds']:8.0f}  " + " ".join(f"{v:.3f}" for v in theirs), flush=True
                )


if __name__ == "__main__":
    main()
