"""Time `fit` against loops that a user would write: steps per second, side by side.

Denoising score matching of two columns, rows in batches of 512, a network with three hidden layers
of 128. In each repeat every contestant takes the same number of steps, in an order that rotates;
ratios are taken within a repeat. The time until the first step is told apart. The floor is the
matrix products of one step alone, of which an energy needs six for each layer and a score three.

    python examples/benchmarks/training.py [--steps 1000] [--repeats 7] [--only score]

PyTorch and torchebm are measured where they are installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from numpyro_score import networks
from numpyro_score.objectives import DenoisingScoreMatching
from numpyro_score.training import fit

BATCH, WIDTH, DEPTH, NOISE, ROWS, RATE = 512, 128, 3, 0.1, 20_000, 1e-3
SIZES = [2] + [WIDTH] * DEPTH
Run = Callable[[int], None]


def rows() -> np.ndarray:
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, ROWS)
    noise = np.random.default_rng(1).normal(0, 0.1, (ROWS, 2))
    return (np.stack([np.cos(angle), np.sin(angle)], 1) + noise).astype(np.float32)


def with_fit(kind: str, validation_fraction: float | None = None) -> Run:
    """Return `fit` as it comes; the others hold no rows out."""
    cls = networks.EnergyMLP if kind == "energy" else networks.ScoreMLP
    network = cls(2, width=WIDTH, depth=DEPTH, key=jax.random.key(0))
    data, objective = rows(), DenoisingScoreMatching(NOISE)

    def run(num_steps: int) -> None:
        fit(
            jax.random.key(1),
            network,
            data,
            objective,
            num_steps=num_steps,
            batch_size=BATCH,
            learning_rate=RATE,
            validation_fraction=validation_fraction,
            progress_bar=False,
        )

    return run


def forward_mode(kind: str) -> Run:
    """The same for an energy, whose ∂θ (v · ∇ₓ f) is taken through a forward derivative along v."""
    if kind == "score":
        raise ImportError("a score has no derivative in x")
    return by_hand(kind, forward=True)


def by_hand(kind: str, forward: bool = False) -> Run:
    """The scan that a user of JAX writes, with the average and schedule that `fit` has."""
    keys = jax.random.split(jax.random.key(0), DEPTH)
    weights = [
        (jax.random.normal(k, (n, m)) / np.sqrt(m), jnp.zeros(n))
        for k, m, n in zip(keys, SIZES[:-1], SIZES[1:], strict=True)
    ]
    params = {"hidden": weights, "head": jnp.zeros((1 if kind == "energy" else 2, WIDTH))}
    data = jnp.asarray(rows())

    def network(p, x):
        for matrix, bias in p["hidden"]:
            x = jax.nn.silu(matrix @ x + bias)
        return p["head"] @ x

    def score(p, x):
        if kind == "score":
            return network(p, x) - x
        return -jax.grad(lambda x: network(p, x)[0] + 0.5 * x @ x)(x)

    def loss(p, batch, noise):
        blurred = batch + NOISE * noise
        off = jax.vmap(score, (None, 0))(p, blurred) + noise / NOISE
        if not forward:
            return 0.5 * NOISE**2 * jnp.mean(jnp.sum(off**2, 1))
        # Not the loss, but of its gradient: that of score · off at a fixed off.
        along = jax.lax.stop_gradient(off)
        energies = jax.vmap(lambda x: network(p, x)[0] + 0.5 * x @ x)
        slope = jax.jvp(energies, (blurred,), (along,))[1]
        return -(NOISE**2) * jnp.mean(slope)

    @jax.jit
    def train(params, key, num_steps):
        schedule = optax.cosine_decay_schedule(RATE, 1_000)
        optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))

        def step(i, carry):
            params, average, state = carry
            index_key, noise_key = jax.random.split(jax.random.fold_in(key, i))
            batch = data[jax.random.randint(index_key, (BATCH,), 0, ROWS)]
            noise = jax.random.normal(noise_key, batch.shape)
            updates, state = optimizer.update(jax.grad(loss)(params, batch, noise), state)
            params = optax.apply_updates(params, updates)
            average = jax.tree.map(lambda a, p: 0.999 * a + 0.001 * p, average, params)
            return params, average, state

        return jax.lax.fori_loop(0, num_steps, step, (params, params, optimizer.init(params)))

    return lambda num_steps: jax.block_until_ready(train(params, jax.random.key(1), num_steps))


def floor(kind: str) -> Run:
    """Matrix products of one step in their order: forward, back to inputs and to weights.

    For an energy once more, for the derivative in x.
    """
    key = jax.random.key(0)
    matrices = [jax.random.normal(key, (m, n)) / np.sqrt(n) for m, n in pairwise(SIZES)]
    below, above = jax.random.normal(key, (BATCH, 2)), jax.random.normal(key, (BATCH, WIDTH))

    def pass_through(below, above, matrices):
        inputs, out = [below], []
        for matrix in matrices:
            inputs.append(inputs[-1] @ matrix)
        # What comes back depends on what went forward, so that no product can be left out.
        above = above + 1e-9 * inputs.pop()
        for x, matrix in zip(reversed(inputs), reversed(matrices), strict=True):
            out.append(matrix + 1e-9 * x.T @ above)
            above = above @ matrix.T
        return above, out[::-1]

    @jax.jit
    def train(below, above, matrices, num_steps):
        def step(_, carry):
            below, matrices = carry
            for _ in range(2 if kind == "energy" else 1):
                back, matrices = pass_through(below, above, matrices)
                below = below + 1e-9 * back
            return below, matrices

        return jax.lax.fori_loop(0, num_steps, step, (below, matrices))

    return lambda num_steps: jax.block_until_ready(train(below, above, matrices, num_steps))


def in_torch(kind: str) -> Run:
    """A plain PyTorch loop."""
    import torch

    data = torch.as_tensor(rows())
    layers: list[torch.nn.Module] = []
    for m, n in pairwise(SIZES):
        layers += [torch.nn.Linear(m, n), torch.nn.SiLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 1 if kind == "energy" else 2))
    optimizer = torch.optim.Adam(net.parameters(), RATE)

    def score(x):
        if kind == "score":
            return net(x) - x
        x.requires_grad_(True)
        energy = net(x).sum() + 0.5 * (x**2).sum()
        return -torch.autograd.grad(energy, x, create_graph=True)[0]

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            batch = data[torch.randint(0, ROWS, (BATCH,))]
            noise = torch.randn_like(batch)
            off = score(batch + NOISE * noise) + noise / NOISE
            loss = 0.5 * NOISE**2 * (off**2).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()

    return run


def in_torchebm(kind: str) -> Run:
    """Torchebm's own denoising loss, for energies."""
    import torch
    from torchebm.core import BaseModel
    from torchebm.losses import DenoisingScoreMatching as TorchDSM

    class Energy(BaseModel):
        def __init__(self):
            super().__init__()
            layers: list[torch.nn.Module] = []
            for m, n in pairwise(SIZES):
                layers += [torch.nn.Linear(m, n), torch.nn.SiLU()]
            self.net = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 1))

        def forward(self, x):
            return self.net(x).squeeze(-1) + 0.5 * (x**2).sum(-1)

    if kind == "score":
        raise ImportError("torchebm learns energies")
    data, model = torch.as_tensor(rows()), Energy()
    loss_fn = TorchDSM(model=model, noise_scale=NOISE)
    optimizer = torch.optim.Adam(model.parameters(), RATE)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            loss = loss_fn(data[torch.randint(0, ROWS, (BATCH,))])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


CONTESTANTS = {
    "fit": with_fit,
    "nothing held out": partial(with_fit, validation_fraction=0.0),
    "scan by hand": by_hand,
    "forward mode": forward_mode,
    "PyTorch": in_torch,
    "torchebm": in_torchebm,
    "floor": floor,
}


def seconds(run: Run, num_steps: int) -> float:
    begin = time.perf_counter()
    run(num_steps)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of fit.")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=("score", "energy"))
    options = parser.parse_args()
    for kind in (options.only,) if options.only else ("score", "energy"):
        runs, first = {}, {}
        for name, make in CONTESTANTS.items():
            try:
                runs[name] = make(kind)
            except ImportError as error:  # not installed, or nothing that there is of this kind
                print(f"{kind}: without {name} ({error})")
                continue
            first[name] = seconds(runs[name], options.steps)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in tqdm(range(options.repeats), desc=kind, leave=False):
            names = list(runs)
            for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                times[name].append(seconds(runs[name], options.steps))
        print(f"\n{kind:17}{'first, s':>10}{'steps/s':>10}{'fit is … × as fast':>24}")
        for name, found in times.items():
            ratio = np.array(found) / np.array(times["fit"])
            spread = f"{np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}]"
            until = max(0.0, first[name] - np.median(found))
            print(f"{name:17}{until:10.1f}{options.steps / np.median(found):10.0f}{spread:>24}")


if __name__ == "__main__":
    main()
