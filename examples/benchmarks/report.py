"""The table: printed, as JSON, and as Markdown."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from contestants import FLOOR
from entrants import BARE, ENTRANTS, HMC_ONE, NUTS, OF_OURS, OURS, OURS_DENSE
from measure import Measurement

_HEADER = (
    f"{'':27}{'compile':>8}{'µs / step':>23}{'× bare':>20}{'× floor':>9}"
    f"{'ESS / s':>25}{'w. warm-up':>11}{'accept':>8}{'R-hat':>8}"
)
_NOTES = """
One interleaved run: median over repeats [least, most]. A step is one step of all chains together.
  compile     seconds to trace and compile the sampling program (initialization not included)
  × bare      time per step over that of BlackJAX's mala in lax.scan, in the same repeat
  × floor     time per step over that of one value_and_grad in the same repeat
  ESS / s     least bulk ESS over parameters, all chains together, by sampling time; the ESS per
              step comes from the draws of all repeats, so the range is that of the time
  w. warm-up  the same for a run with as many steps after warm-up as in it, warm-up included
  -r, -a      no ESS per second: R-hat above 1.01; acceptance more than 0.15 from its target
NumPyro's kernels and ours are MCMC(progress_bar=False).run, compiled once, chains vectorized;
BarkerMH takes one key, so several chains run by chain_method=jax.vmap. HMC(1) has num_steps=1 and
MALA's target acceptance. Bare mala has our median step size, with our metric, or with the identity
and a step for the narrowest direction; "inside MCMC" is what NumPyro's loop costs any kernel."""

Results = dict[tuple[str, int], list[Measurement]]


def environment() -> dict[str, Any]:
    """Return what the numbers depend on."""
    packages = ("numpyro_score", "numpyro", "jax", "jaxlib", "blackjax", "arviz", "numpy")
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": f"{device.platform} ({device.device_kind})",
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load average": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def print_table(results: Results) -> None:
    """Print one block of rows per target and number of chains."""
    for (target, chains), measurements in results.items():
        print(f"\n{target}, {chains} chain{'s' if chains > 1 else ''}\n{_HEADER}")
        for row in rows(measurements):
            print(_format(row))
    print(_NOTES)


def rows(measurements: list[Measurement]) -> list[dict[str, Any]]:
    """Return one dictionary per contestant, ready for JSON; a triple is median, least, most."""
    times = {m.contestant.name: m.seconds_per_step for m in measurements}
    return [
        {
            "name": m.contestant.name,
            "compile_seconds": m.contestant.compile_seconds,
            "microseconds_per_step": _spread(1e6 * m.seconds_per_step),
            "ratio_to_bare": _spread(m.seconds_per_step / times[BARE]),
            "ratio_to_floor": _spread(m.seconds_per_step / times[FLOOR]),
            "ess_per_second": _spread(m.ess_per_second()) if m.ess_per_step else None,
            "ess_per_second_with_warmup": m.ess_per_second_with_warmup(),
            "accept_prob": m.accept_prob,
            "r_hat": m.r_hat,
            "unhealthy": m.unhealthy,
        }
        for m in measurements
    ]


def print_goals(results: Results) -> None:
    """Print what this package promises beside what was measured."""
    print("\nGoals")
    for (target, chains), measurements in results.items():
        by_name = {m.contestant.name: m for m in measurements}
        ours, bare = by_name[OURS], by_name[BARE]
        ratio = _spread(ours.seconds_per_step / bare.seconds_per_step)
        print(f"  {target}, {chains}:")
        print(
            f"    MALA at most 1.10 × bare per step: {_interval(ratio)} {_verdict(ratio[0] <= 1.1)}"
        )
        if HMC_ONE in by_name:
            _print_gain("MALA at least HMC(1)'s ESS / s", ours, by_name[HMC_ONE], 1.0)
        if "logistic" in target and OURS_DENSE in by_name:
            _print_gain("dense at least 5 × diagonal ESS / s", by_name[OURS_DENSE], ours, 5.0)
        healthy = [m for name, m in by_name.items() if name in OF_OURS and not m.unhealthy]
        if NUTS in by_name and healthy:
            best = max(healthy, key=lambda m: np.median(m.ess_per_second()))
            least = 3.0 if chains >= 64 and target.startswith(("eight", "logistic")) else 1.0
            name = f"the best of ours, {best.contestant.name}, at least {least:.0f} × NUTS"
            _print_gain(name, best, by_name[NUTS], least)


def _print_gain(goal: str, one: Measurement, other: Measurement, least: float) -> None:
    unhealthy = [m.contestant.name for m in (one, other) if m.unhealthy]
    if unhealthy:
        print(f"    {goal}: not comparable, unhealthy: {', '.join(unhealthy)}")
        return
    gain = _spread(one.ess_per_second() / other.ess_per_second())
    print(f"    {goal}: {_interval(gain)} {_verdict(gain[0] >= least)}")


def markdown(results: Results) -> str:
    """Return a table for each number of chains: ESS per second with warm-up, kernels by targets."""
    tables = []
    for chains in sorted({chains for _, chains in results}):
        cells = {target: results[target, n] for target, n in results if n == chains}
        by_kernel = {t: {m.contestant.name: m for m in ms} for t, ms in cells.items()}
        kernels = list(dict.fromkeys(n for row in by_kernel.values() for n in row if n in ENTRANTS))
        lines = [
            f"| {chains} chain{'s' if chains > 1 else ''} | " + " | ".join(cells) + " |",
            "|---" + "|---:" * len(cells) + "|",
        ]
        for kernel in kernels:
            values = [_markdown_cell(by_kernel[target].get(kernel)) for target in cells]
            lines.append(f"| {kernel} | " + " | ".join(values) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _markdown_cell(measurement: Measurement | None) -> str:
    if measurement is None:
        return ""
    if measurement.unhealthy:
        return f"– ({measurement.r_hat:.2f})"
    value = measurement.ess_per_second_with_warmup()
    return f"{_short(value)} ({measurement.r_hat:.3f})"


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    return float(np.median(values)), float(values.min()), float(values.max())


def _interval(spread: tuple[float, float, float]) -> str:
    median, least, most = (_short(value) for value in spread)
    return f"{median} [{least}, {most}]"


def _short(value: float) -> str:
    """Return three digits, and all of a larger whole number."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _format(row: dict[str, Any]) -> str:
    ratios = f"{_interval(row['ratio_to_bare']):>20}{_short(row['ratio_to_floor'][0]):>9}"
    line = (
        f"{row['name']:27}{row['compile_seconds']:8.1f}"
        f"{_interval(row['microseconds_per_step']):>23}{ratios}"
    )
    if row["ess_per_second"] is None:
        return line
    if row["unhealthy"]:
        ess = warm = "-" + row["unhealthy"]
    else:
        ess, warm = _interval(row["ess_per_second"]), row["ess_per_second_with_warmup"]
        warm = "" if warm is None else _short(warm)
    accept = "" if row["accept_prob"] is None else f"{row['accept_prob']:.2f}"
    return f"{line}{ess:>25}{warm:>11}{accept:>8}{row['r_hat']:>8.3f}"
