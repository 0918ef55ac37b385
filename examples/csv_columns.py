"""Columns of numbers from a CSV file, by name; and a small file to begin with."""

import csv
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MISSING = {"", "?", "-", "na", "n/a", "nan", "null", "none"}
FEWEST_ROWS = 100  # a fifth of them, 20, is the least that a check takes


class Table(NamedTuple):
    """Rows without missing values, and what was left out to get there."""

    names: list[str]
    rows: np.ndarray
    story: list[str]


def read_table(path: str, columns: Sequence[str] | None = None) -> Table:
    """Read a CSV file whose first line names its columns.

    A row with a missing value (empty, ``NA``, ``nan``, ``?`` and the like) is left out as a whole.

    :param columns: which to read; all by default.
    :raises ValueError: what cannot be learned from, with the line or the column, and what to do.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        delimiter = max(",;\t", key=first.count)
        lines = [[cell.strip() for cell in line] for line in csv.reader(file, delimiter=delimiter)]
    if len(lines) < 2:
        raise ValueError(f"{path} has {len(lines)} lines: a line of names, then rows, are needed.")
    names = lines[0]
    if all(_is_number(cell) for cell in names):
        raise ValueError(
            f"the first line of {path} holds numbers, {names[:3]}, where the names of the columns "
            "should stand: put a line of names above it."
        )
    if "" in names or len(set(names)) < len(names):
        raise ValueError(f"every column needs a name of its own, got {names}.")
    chosen = list(columns) if columns else names
    check_names(chosen, names, "--columns")
    numbers, story = [], []
    filled = [(i, line) for i, line in enumerate(lines[1:], 2) if any(line)]
    for i, line in filled:
        if len(line) != len(names):
            raise ValueError(f"line {i} has {len(line)} cells where the first has {len(names)}.")
        numbers.append([_number(line[names.index(n)], n, i, chosen) for n in chosen])
    rows = np.array(numbers).reshape(-1, len(chosen))
    missing = np.isnan(rows)
    empty = [n for n, lost in zip(chosen, missing.T, strict=True) if lost.all()]
    if empty:
        raise ValueError(f"nothing but missing values in {empty}: leave out with --columns.")
    if missing.any():
        counts = {n: int(k) for n, k in zip(chosen, missing.sum(0), strict=True) if k}
        told = ", ".join(f"{k} in {n}" for n, k in counts.items())
        story.append(f"missing values: {told}")
    rows = rows[~missing.any(1)]
    left_out = len(missing) - len(rows)
    story.append(f"{len(rows):,} rows of {', '.join(chosen)}; {left_out:,} with gaps left out")
    if len(rows) < FEWEST_ROWS:
        raise ValueError(
            f"{'; '.join(story)}. A density needs at least {FEWEST_ROWS} rows; fewer --columns "
            "may leave more."
        )
    constant = [n for n, x in zip(chosen, rows.T, strict=True) if np.ptp(x) == 0]
    if constant:
        raise ValueError(f"always the same number in {constant}: leave out with --columns.")
    return Table(chosen, rows, story)


def parse_given(texts: list[str], table: Table) -> dict[str, float]:
    """Return numbers from texts such as ``age=40``; of those unlike the data, a warning is printed.

    :raises ValueError: another text, an unknown column, or nothing left to infer.
    """
    given = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not _is_number(value):
            raise ValueError(f"--given {text!r} should be column=number.")
        given[name] = float(value)
    check_names(list(given), table.names, "--given")
    if len(given) == len(table.names):
        raise ValueError("every column is given, so that nothing is left to infer.")
    for name, value in given.items():
        column = table.rows[:, table.names.index(name)]
        if not column.min() <= value <= column.max():
            seen = f"{column.min():.4g} to {column.max():.4g}"
            print(f"careful: {name}={value:.6g} lies outside of the data, which go from {seen}")
    return given


def check_names(asked: Sequence[str], names: Sequence[str], option: str) -> None:
    """Refuse names of columns that are not there."""
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise ValueError(f"{option} has no column {unknown}; there are {list(names)}.")


def _is_number(cell: str) -> bool:
    try:
        return np.isfinite(float(cell)).item()
    except ValueError:
        return False


def _number(cell: str, name: str, line: int, chosen: list[str]) -> float:
    if cell.lower() in MISSING:
        return np.nan
    if not _is_number(cell):
        raise ValueError(
            f"column {name!r} holds {cell!r} in line {line}, which is no finite number (1234.5 is "
            f"how one is written); learn from others with --columns, of {chosen}."
        )
    return float(cell)


def write_people(path: str) -> None:
    """Write a file to begin with: age, height in cm, and weight in kg, of 2,000 invented people.

    Heights have two modes, weights are skew, and 60 cells are empty.
    """
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, 2_000)
    tall = rng.random(2_000) < 0.5
    height = np.where(tall, 179, 165) + 5 * rng.normal(size=2_000) - 0.05 * (age - 20)
    weight = (20 + 0.08 * age) * (height / 100) ** 2 * np.exp(0.12 * rng.normal(size=2_000))
    cells = [[f"{x:.1f}" for x in row] for row in np.stack([age, height, weight], 1)]
    for row, column in zip(rng.integers(0, 2_000, 60), rng.integers(0, 3, 60), strict=True):
        cells[row][column] = ""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["age", "height", "weight"], *cells])
