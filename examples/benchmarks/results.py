"""Results on disk: as JSON, and as a table in the README."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from entrants import ENTRANTS, TFP_MALA
from measure import Measurement
from report import short

Results = dict[tuple[str, int], list[Measurement]]

_START, _END = "<!-- kernels.py -->\n", "<!-- end -->\n"


def read_json(path: Path | None) -> Results:
    """Return the results in the file, none where there is no file."""
    if path is None or not path.exists():
        return {}
    cells = json.loads(path.read_text())["results"]
    return {
        (cell["target"], cell["chains"]): [Measurement(**row) for row in cell["rows"]]
        for cell in cells
    }


def write_json(path: Path, results: Results, header: dict) -> None:
    """Replace the file at once, so that an interrupt leaves the old one or the new."""
    cells = [
        {"target": target, "chains": chains, "rows": [asdict(row) for row in measurements]}
        for (target, chains), measurements in results.items()
    ]
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"environment": header, "results": cells}, indent=1))
    os.replace(new, path)


def write_readme(path: Path, results: Results, header: dict) -> None:
    """Put the tables between the two marks of the README."""
    before, rest = path.read_text().split(_START)
    _, after = rest.split(_END)
    machine = f"{header['cpus']} CPUs, {header['processor']}; jax {header['jax']}"
    table = f"{_markdown(results)}\n\nMeasured on {machine}."
    path.write_text(f"{before}{_START}\n{table}\n\n{_END}{after}")


def _markdown(results: Results) -> str:
    """Return a table for each number of chains: ESS per second with warm-up, kernels by targets."""
    tables = []
    for chains in sorted({chains for _, chains in results}):
        cells = {
            target: {row.name: row for row in rows}
            for (target, n), rows in results.items()
            if n == chains
        }
        names = [n for n in (*ENTRANTS, TFP_MALA) if any(n in rows for rows in cells.values())]
        lines = [
            f"| {chains} chain{'s' if chains > 1 else ''} | " + " | ".join(cells) + " |",
            "|---" + "|---:" * len(cells) + "|",
        ]
        for name in names:
            values = [_markdown_cell(rows.get(name)) for rows in cells.values()]
            lines.append(f"| {name} | " + " | ".join(values) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _markdown_cell(row: Measurement | None) -> str:
    if row is None or row.r_hat is None:
        return ""
    if row.unhealthy:
        return f"– ({row.r_hat:.2f})"
    return f"{short(row.ess_per_second_with_warmup())} ({row.r_hat:.3f})"
