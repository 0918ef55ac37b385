"""Time the kernels as a user runs them: ESS per second against NumPyro's, µs against BlackJAX's.

One interleaved run for each target and number of chains: in each repeat every contestant runs once,
in an order that rotates, and ratios are taken within a repeat. `--bare` times a bare BlackJAX loop
beside each of our kernels. `--quick` is a rehearsal whose numbers mean little.

With `--json FILE` results are written after each target and number of chains; what FILE already
holds is not measured again, so that an interrupted run goes on.

    python examples/benchmarks/kernels.py [--quick] [--targets logistic] [--chains 4 64]
                                          [--kernels MALA NUTS] [--bare] [--json FILE] [--readme]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from entrants import ENTRANTS, build
from measure import measure
from report import environment, print_goals, print_table
from results import Results, read_json, write_json, write_readme
from targets import TARGETS
from tqdm import tqdm


class Effort(NamedTuple):
    """How long to look: warm-up steps, and seconds of each run of each contestant."""

    warmup: int
    seconds: float


_README = Path(__file__).parents[2] / "README.md"
_FULL = Effort(warmup=5_000, seconds=0.4)
_QUICK = Effort(warmup=1_000, seconds=0.05)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmark of the kernels.")
    parser.add_argument("--quick", action="store_true", help="a rehearsal")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="of each run of each of ours, by default 0.4")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--kernels", nargs="+", choices=ENTRANTS, default=list(ENTRANTS))
    parser.add_argument("--chains", nargs="+", type=int, default=[1, 4, 64, 512])
    parser.add_argument("--bare", action="store_true", help="a bare loop beside each of ours")
    parser.add_argument("--json", metavar="FILE", type=Path, help="results are kept there")
    parser.add_argument("--readme", action="store_true", help="put the table into the README")
    return parser.parse_args()


def _run(options: argparse.Namespace, effort: Effort, header: dict) -> tuple[Results, dict]:
    results, measured_on = read_json(options.json)
    cells = [(name, chains) for name in options.targets for chains in options.chains]
    missing = [cell for cell in cells if cell not in results]
    if missing and measured_on and measured_on["device"] != header["device"]:
        raise SystemExit(
            f"{options.json} was measured on {measured_on['device']}: take another file."
        )
    for name, chains in _with_bar(missing):
        target = TARGETS[name]()
        with tqdm(leave=False) as bar:

            def progress(what: str, bar: tqdm = bar) -> None:
                bar.set_description(what)
                bar.update()

            contestants = build(target, chains, *effort, options.kernels, options.bare, progress)
            results[name, chains] = measure(contestants, options.repeats, effort.seconds, progress)
        if options.json:
            write_json(options.json, results, header)
    return results, header if missing else measured_on or header


def _with_bar(cells: list[tuple[str, int]]) -> Iterable[tuple[str, int]]:
    with tqdm(cells, unit="cell") as bar:
        for name, chains in bar:
            bar.set_description(f"{name}, {chains}")
            yield name, chains


def main() -> None:
    options = _parse_arguments()
    effort = _QUICK if options.quick else _FULL
    if options.seconds is not None:
        effort = effort._replace(seconds=options.seconds)
    header = environment()
    print(", ".join(f"{name} {value}" for name, value in header.items()))
    results, header = _run(options, effort, header)
    print_table(results)
    print_goals(results)
    if options.readme:
        write_readme(_README, results, header)


if __name__ == "__main__":
    main()
