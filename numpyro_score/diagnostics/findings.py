"""A table of findings: what was looked at, the number, how large it may be, and what to do."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_WIDTH = 100
_MARKS = {True: "✓", False: "✗", None: "?"}
_ASCII = str.maketrans({"✓": "+", "✗": "x", "±": "~", "≤": "<", "≥": ">", "→": ">", "–": "-"})

#: Standard errors within which a number may be off: one in 16,000 is, by chance.
NUM_ERRORS = 4.0


@dataclass(frozen=True)
class Finding:
    """One row of :class:`Findings`.

    - **name** - what was looked at.
    - **value**, **error** - the number, and its standard error; NaN where they are not known.
    - **threshold** - the least and the largest that the number may be.
    - **passed** - whether it is within, an error allowed for; None where that cannot be told.
    - **advice** - what to do, or why it cannot be told; empty where all is well.
    """

    name: str
    value: float
    error: float = math.nan
    threshold: tuple[float, float] = (-math.inf, math.inf)
    passed: bool | None = None
    advice: str = ""


def judge(
    name: str,
    value: float,
    threshold: tuple[float, float],
    advice: str,
    *,
    error: float = math.nan,
    num_errors: float = NUM_ERRORS,
) -> Finding:
    """Return a finding that fails where the number is outside by more than so many errors."""
    value = float(value)
    if math.isnan(value):
        return Finding(name, value, error, threshold, None, "the number is NaN")
    slack = 0.0 if math.isnan(error) else num_errors * float(error)
    passed = bool(threshold[0] - slack <= value <= threshold[1] + slack)
    return Finding(name, value, float(error), threshold, passed, "" if passed else advice)


def cannot_tell(name: str, why: str) -> Finding:
    """Return a finding without a number."""
    return Finding(name, math.nan, advice=why)


@dataclass(frozen=True, repr=False)
class Findings:
    """What :func:`check` and :func:`report` return; its ``repr`` is the table.

    - **title** - of what.
    - **rows** - a :class:`Finding` each.

    >>> from numpyro_score.diagnostics import Finding, Findings
    >>> table = Findings("a run", (Finding("R-hat", 1.3, threshold=(0.0, 1.01), passed=False),))
    >>> table.passed, table["R-hat"].value
    (False, 1.3)
    """

    title: str
    rows: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether no row failed; what cannot be told does not count."""
        return not self.failed

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The rows that failed."""
        return tuple(row for row in self.rows if row.passed is False)

    def __getitem__(self, name: str) -> Finding:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r}; there are {[row.name for row in self.rows]}.")

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        cells = [(row.name, _number(row), _bounds(row.threshold)) for row in self.rows]
        header = ("", "value", "should be")
        widths = [max(len(cell[i]) for cell in [header, *cells]) for i in range(3)]
        lines = textwrap.wrap(self.title, _WIDTH)
        lines.append(_line(" ", header, widths))
        for row, cell in zip(self.rows, cells, strict=True):
            lines.append(_line(_MARKS[row.passed], cell, widths))
            if row.advice:
                indent = " " * 6
                lines += textwrap.wrap(
                    f"→ {row.advice}",
                    _WIDTH,
                    initial_indent=" " * 4,
                    subsequent_indent=indent,
                    break_on_hyphens=False,
                )
        return "\n".join([*lines, self._summary()])

    def _summary(self) -> str:
        unknown = sum(row.passed is None for row in self.rows)
        failed = len(self.failed)
        good = len(self.rows) - failed - unknown
        parts = [f"✓ {good} fine", f"✗ {failed} failed"]
        return ", ".join(parts + ([f"? {unknown} cannot be told"] if unknown else []))

    def show(self) -> None:
        """Print the table, in ASCII where the terminal knows no other signs."""
        text = repr(self)
        try:
            text.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:
            text = text.translate(_ASCII).encode("ascii", "replace").decode()
        print(text)


def _line(mark: str, cell: tuple[str, str, str], widths: list[int]) -> str:
    name, value, bounds = cell
    return f" {mark}  {name:<{widths[0]}}  {value:>{widths[1]}}  {bounds}".rstrip()


def _number(row: Finding) -> str:
    if math.isnan(row.value):
        return "–"
    if math.isnan(row.error):
        return _digits(row.value)
    if row.error == 0:
        return f"{_digits(row.value)} ± 0"
    # As many decimals as the error has two digits.
    decimals = min(max(1 - math.floor(math.log10(row.error)), 0), 6)
    if abs(row.value) >= 1e6 or decimals == 6:
        return f"{row.value:.3g} ± {row.error:.2g}"
    return f"{row.value:,.{decimals}f} ± {row.error:.{decimals}f}"


def _digits(value: float) -> str:
    if math.isinf(value) or (value and not 1e-4 <= abs(value) < 1e7):
        return f"{value:.3g}"
    if value == round(value) and abs(value) < 1e7:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    # R-hat of 1.004 is another one than 1.04.
    return np.format_float_positional(value, precision=4, unique=False, fractional=False, trim="-")


def _bounds(threshold: tuple[float, float]) -> str:
    low, high = threshold
    if math.isinf(low) and math.isinf(high):
        return ""
    if low == high:
        return _digits(low)
    if math.isinf(low):
        return f"≤ {_digits(high)}"
    if math.isinf(high):
        return f"≥ {_digits(low)}"
    return f"{_digits(low)} to {_digits(high)}"
