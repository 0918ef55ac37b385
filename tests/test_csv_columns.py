"""What example 05 makes of other people's files: rows, or a word on what is wrong with them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

_PATH = Path(__file__).parent.parent / "examples" / "csv_columns.py"
_SPEC = importlib.util.spec_from_file_location("csv_columns", _PATH)
csv_columns = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(csv_columns)

ROWS = [f"{i},{2 * i + 0.5},{i**2}" for i in range(100)]


@pytest.fixture
def read(tmp_path):
    def read(lines, columns=None, encoding="utf-8"):
        path = tmp_path / "data.csv"
        path.write_text("\n".join(lines), encoding=encoding)
        return csv_columns.read_table(str(path), columns)

    return read


def test_columns_are_read_by_name_in_the_order_asked(read):
    table = read(["a,b,c", *ROWS], ["c", "a"])
    assert table.names == ["c", "a"]
    np.testing.assert_array_equal(table.rows[:3], [[0, 0], [1, 1], [4, 2]])
    assert table.story == ["100 rows of c, a; 0 with gaps left out"]


@pytest.mark.parametrize("gap", ["", "NA", "nan", " ? ", "null"])
def test_rows_with_gaps_are_left_out_and_told(read, gap):
    lines = ["a,b,c", f"1,{gap},3", f"{gap},{gap},3", *ROWS]
    table = read(lines)
    assert len(table.rows) == 100
    assert table.story == [
        "missing values: 1 in a, 2 in b",
        "100 rows of a, b, c; 2 with gaps left out",
    ]
    # A gap in a column that is not asked for costs nothing.
    assert len(read(lines, ["c"]).rows) == 102


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_quotes_blank_lines_and_a_byte_order_mark(read, delimiter):
    lines = [
        '"a b",c'.replace(",", delimiter),
        "",
        *(f'"{i}"{delimiter}{i % 7}' for i in range(100)),
    ]
    table = read(lines, encoding="utf-8-sig")
    assert table.names == ["a b", "c"]
    assert table.rows.shape == (100, 2)


@pytest.mark.parametrize(
    ("lines", "columns", "message"),
    [
        ([""], None, "a line of names, then rows"),
        (["1,2,3", *ROWS], None, "where the names of the columns"),
        (["a,a,c", *ROWS], None, "a name of its own"),
        (["a,,c", *ROWS], None, "a name of its own"),
        (["a,b,c", *ROWS], ["a", "d"], r"--columns has no column \['d'\]; there are"),
        (["a,b,c", "1,2", *ROWS], None, "line 2 has 2 cells where the first has 3"),
        (["a,b,c", "1,red,3", *ROWS], None, "'b' holds 'red' in line 2"),
        (["a,b,c", "1,inf,3", *ROWS], None, "'b' holds 'inf' in line 2"),
        (["a,b,c", "1;5,2,3", *ROWS], None, "'a' holds '1;5'"),
        (["a,b", *(f"{i}," for i in range(100))], None, r"nothing but missing values in \['b'\]"),
        (["a,b", *(f"{i},7" for i in range(100))], None, r"always the same number in \['b'\]"),
        (["a,b,c", *ROWS[:99]], None, "99 rows of a, b, c; .* at least 100 rows"),
    ],
)
def test_what_cannot_be_learned_from_is_said(read, lines, columns, message):
    with pytest.raises(ValueError, match=message):
        read(lines, columns)


def test_given_values_and_a_word_where_they_are_unlike_the_data(read, capsys):
    table = read(["a,b,c", *ROWS])
    assert csv_columns.parse_given(["a=5", "c=1e2"], table) == {"a": 5.0, "c": 100.0}
    assert capsys.readouterr().out == ""
    csv_columns.parse_given(["a=100"], table)
    assert "a=100 lies outside of the data, which go from 0 to 99" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a"], "'a' should be column=number"),
        (["a=x"], "'a=x' should be column=number"),
        (["a=nan"], "'a=nan' should be column=number"),
        (["d=1"], r"--given has no column \['d'\]"),
        (["a=1", "b=1", "c=1"], "nothing is left to infer"),
    ],
)
def test_given_values_that_are_none(read, given, message):
    with pytest.raises(ValueError, match=message):
        csv_columns.parse_given(given, read(["a,b,c", *ROWS]))


def test_the_file_to_begin_with_can_be_read(tmp_path):
    path = str(tmp_path / "people.csv")
    csv_columns.write_people(path)
    table = csv_columns.read_table(path)
    assert table.names == ["age", "height", "weight"]
    assert 1_900 < len(table.rows) < 2_000
