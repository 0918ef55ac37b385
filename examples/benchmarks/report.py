"""The table and the goals, printed."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from contestants import FLOOR
from entrants import HMC_ONE, NUTS, OF_OURS, OURS, OURS_DENSE
from measure import Measurement

_HEADER = (
    f"{'':27}{'compile':>8}{'µs / step, chain':>23}{'× bare':>20}{'× floor':>9}"
    f"{'ESS / s':>25}{'w. warm-up':>11}{'accept':>8}{'R-hat':>8}"
)
_NOTES = """
One interleaved run: median over repeats [least, most].
  compile     seconds to trace and compile, initialization included for our kernels
  × bare      time per step over that of the kernel's own bare BlackJAX loop, in the same repeat
  × floor     time per step over that of one value_and_grad in the same repeat
  ESS / s     least bulk ESS over parameters, all chains together, by sampling time; the ESS per
              step comes from the draws of all repeats, so the range is that of the time
  w. warm-up  the same for a run with as many steps after warm-up as in it, warm-up included
  -r, -a      no ESS per second: R-hat above 1.01; acceptance more than 0.15 from its target
Ours run in numpyro_score's MCMC, as a user runs them. NumPyro's run in its own, without its bar and
compiled once, which costs a user a jit around `run`; BarkerMH takes one key, so that its chains run
by chain_method=jax.vmap. HMC(1) has num_steps=1 and MALA's target acceptance. TFP's MALA has our
step size for the narrowest direction."""


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


def print_table(results: dict[tuple[str, int], list[Measurement]]) -> None:
    """Print one block of rows per target and number of chains."""
    for (target, chains), rows in results.items():
        print(f"\n{target}, {chains} chain{'s' if chains > 1 else ''}\n{_HEADER}")
        by_name = {row.name: row for row in rows}
        for row in rows:
            print(_format(row, by_name, chains))
    print(_NOTES)


def _format(row: Measurement, by_name: dict[str, Measurement], chains: int) -> str:
    bare = _interval(_spread(row.times / by_name[row.bare].times)) if row.bare else ""
    floor = short(float(np.median(row.times / by_name[FLOOR].times)))
    line = (
        f"{row.name:27}{row.compile_seconds:8.1f}"
        f"{_interval(_spread(1e6 * row.times / chains)):>23}{bare:>20}{floor:>9}"
    )
    if row.ess_per_step is None:
        return line
    if row.unhealthy:
        ess = warm = "-" + row.unhealthy
    else:
        ess, warm = _interval(_spread(row.ess_per_second())), row.ess_per_second_with_warmup()
        warm = "" if warm is None else short(warm)
    accept = "" if row.accept_prob is None else f"{row.accept_prob:.2f}"
    return f"{line}{ess:>25}{warm:>11}{accept:>8}{row.r_hat:>8.3f}"


def print_goals(results: dict[tuple[str, int], list[Measurement]]) -> None:
    """Print what this package promises beside what was measured."""
    print("\nGoals")
    for (target, chains), rows in results.items():
        print(f"  {target}, {chains}:")
        by_name = {row.name: row for row in rows}
        for row in rows:
            if row.bare:
                ratio = _spread(row.times / by_name[row.bare].times)
                most = 1.05 if row.name == OURS else 1.1
                met = _verdict(ratio[0] <= most)
                print(f"    {row.name} at most {most} × its bare loop: {_interval(ratio)} {met}")
        if HMC_ONE in by_name:
            _print_gain("MALA at least HMC(1)'s ESS / s", by_name[OURS], by_name[HMC_ONE], 1.0)
        if "logistic" in target and OURS_DENSE in by_name:
            dense = by_name[OURS_DENSE]
            _print_gain("dense at least 5 × diagonal ESS / s", dense, by_name[OURS], 5.0)
        if NUTS in by_name:
            _print_best(rows, by_name[NUTS], 3.0 if _is_asked_for(target, chains) else 1.0)


def _is_asked_for(target: str, chains: int) -> bool:
    return chains >= 64 and target in ("eight_schools", "logistic")


def _print_best(rows: list[Measurement], nuts: Measurement, least: float) -> None:
    """Print the best of our healthy, exact kernels, warm-up included, against NUTS."""
    ours = [row for row in rows if row.name in OF_OURS and not row.unhealthy]
    # Without a Metropolis test there is no acceptance, and a bias.
    healthy = [row for row in ours if row.accept_prob is not None]
    if not healthy:
        print("    none of ours is healthy")
        return
    best = max(healthy, key=lambda row: row.ess_per_second_with_warmup() or 0.0)
    goal = f"the best of ours, {best.name}, at least {least:.0f} × NUTS"
    if nuts.unhealthy:
        print(f"    {goal}: NUTS is unhealthy ({nuts.r_hat:.2f})")
        return
    _print_gain(goal, best, nuts, least)
    gain = (best.ess_per_second_with_warmup() or 0.0) / (nuts.ess_per_second_with_warmup() or 1.0)
    print(f"      with warm-up: {short(gain)} {_verdict(gain >= least)}")


def _print_gain(goal: str, one: Measurement, other: Measurement, least: float) -> None:
    unhealthy = [row.name for row in (one, other) if row.unhealthy]
    if unhealthy:
        print(f"    {goal}: not comparable, unhealthy: {', '.join(unhealthy)}")
        return
    gain = _spread(one.ess_per_second() / other.ess_per_second())
    print(f"    {goal}: {_interval(gain)} {_verdict(gain[0] >= least)}")


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    return float(np.median(values)), float(values.min()), float(values.max())


def _interval(spread: tuple[float, float, float]) -> str:
    median, least, most = (short(value) for value in spread)
    return f"{median} [{least}, {most}]"


def short(value: float) -> str:
    """Return three digits, and all of a larger whole number."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
