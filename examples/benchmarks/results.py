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

_MARK = "<!-- kernels.py{} -->\n"


def read_json(path: Path | None) -> tuple[Results, dict | None]:
    """Return the results in the file, and where they were measured; none where there is no file."""
    if path is None or not path.exists():
        return {}, None
    content = json.loads(path.read_text())
    results = {
        (cell["target"], cell["chains"]): [Measurement(**row) for row in cell["rows"]]
        for cell in content["results"]
    }
    return results, content["environment"]


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
    """Put the tables between the two marks of the README: those of a GPU between two of its own."""
    of_gpu = header["device"].startswith("gpu")
    mark = _MARK.format(" gpu" if of_gpu else "")
    before, _, after = path.read_text().split(mark)
    machine = header["device"] if of_gpu else f"{header['cpus']} CPUs, {header['processor']}"
    measured = f"Measured on {machine}; jax {header['jax']}."
    path.write_text(f"{before}{mark}\n{_markdown(results)}\n\n{measured}\n\n{mark}{after}")


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
