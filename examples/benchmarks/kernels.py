"""Time the kernels inside NumPyro's MCMC against its own, and MALA against its floor.

One table from one interleaved run: in each repeat every contestant runs once, in an order that
rotates, and ratios are taken within a repeat. About 4 minutes for a target and a number of chains
on two idle cores; `--quick` is a rehearsal whose numbers mean little.

    python examples/benchmarks/kernels.py [--quick] [--targets logistic] [--chains 4 64]
                                          [--kernels MALA NUTS] [--json FILE] [--readme]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

from entrants import ENTRANTS, REFERENCES, build
from measure import measure
from report import Results, environment, markdown, print_goals, print_table, rows
from targets import TARGETS
from tqdm import tqdm


class Effort(NamedTuple):
    """How long to look: warm-up steps, and seconds of each run of each contestant."""

    warmup: int
    seconds: float


_README = Path(__file__).parents[2] / "README.md"
_FULL = Effort(warmup=10_000, seconds=0.75)
_QUICK = Effort(warmup=2_000, seconds=0.05)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmark of the kernels.")
    parser.add_argument("--quick", action="store_true", help="a rehearsal of a few minutes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--kernels", nargs="+", choices=ENTRANTS, default=list(ENTRANTS))
    parser.add_argument("--chains", nargs="+", type=int, default=[1, 4, 64, 512])
    parser.add_argument("--json", metavar="FILE", help="write the table there as well")
    parser.add_argument("--readme", action="store_true", help="put the table into the README")
    return parser.parse_args()


def _run(options: argparse.Namespace, effort: Effort) -> Results:
    cells = len(options.targets) * len(options.chains)
    results: Results = {}
    runs = (len(options.kernels) + REFERENCES) * (options.repeats + 1)
    with tqdm(total=cells * runs) as bar:

        def progress(what: str) -> None:
            bar.set_postfix_str(what)
            bar.update()

        for name in options.targets:
            bar.set_description(f"{name}, building")
            target = TARGETS[name]()
            for chains in options.chains:
                bar.set_description(f"{name}, {chains}")
                contestants = build(
                    target, chains, effort.warmup, options.kernels, bar.set_postfix_str
                )
                results[target.name, chains] = measure(
                    contestants, options.repeats, effort.seconds, progress
                )
    return results


def _write_json(path: str, results: Results, header: dict) -> None:
    cells = [
        {"target": target, "chains": chains, "rows": rows(measurements)}
        for (target, chains), measurements in results.items()
    ]
    with open(path, "w") as file:
        json.dump({"environment": header, "results": cells}, file, indent=1)


def _write_readme(table: str, header: dict) -> None:
    start, end = "<!-- kernels.py -->\n", "<!-- end -->\n"
    text = _README.read_text()
    before, rest = text.split(start)
    _, after = rest.split(end)
    machine = f"{header['cpus']} CPUs, {header['processor']}; jax {header['jax']}"
    _README.write_text(f"{before}{start}\n{table}\n\nMeasured on {machine}.\n\n{end}{after}")


def main() -> None:
    options = _parse_arguments()
    header = environment()
    print(", ".join(f"{name} {value}" for name, value in header.items()))
    results = _run(options, _QUICK if options.quick else _FULL)
    print_table(results)
    print_goals(results)
    if options.readme:
        _write_readme(markdown(results), header)
    if options.json:
        _write_json(options.json, results, header)


if __name__ == "__main__":
    main()
