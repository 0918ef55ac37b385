"""Code in README and docs runs, and says what it is said to say; examples are short."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
INCLUDED = re.compile(r'{include} (\S+)\n:start-after: "(.*)"\n:end-before: "(.*)"')


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def quickstart() -> str:
    text = (ROOT / "README.md").read_text()
    return text[text.index("<!-- quickstart -->") : text.index("<!-- end of quickstart -->")]


def numbers(table: str) -> np.ndarray:
    """Return mean and sd of each row of a summary."""
    rows = [line.split()[1:3] for line in table.splitlines() if line.startswith("x[")]
    return np.array(rows, float)


def test_the_quickstart_is_short():
    (code,) = blocks(quickstart(), "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


@pytest.mark.statistics
def test_the_quickstart_prints_what_the_readme_says():
    """To four standard errors of a fifth of the draws, of which 170 are effective."""
    (code,), (said,) = blocks(quickstart(), "python"), blocks(quickstart(), "text")
    out = io.StringIO()
    with redirect_stdout(out):
        exec(code.replace("num_samples=20_000", "num_samples=4_000"), {})
    found, said = numbers(out.getvalue()), numbers(said)
    exact = np.array([[1.513, 0.406], [0.0, 1.252]])  # the circle with the objective's noise
    assert said.shape == found.shape == exact.shape
    np.testing.assert_allclose(found, exact, atol=0.4)
    np.testing.assert_allclose(said, exact, atol=0.2)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.name
)
def test_code_of_the_pages_runs(page, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    space = {}
    for code in blocks(page.read_text(), "python"):
        exec(code, space)
    plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_include_and_link_what_is_there(page):
    text = page.read_text()
    for name, start, end in INCLUDED.findall(text):
        source = (page.parent / name).read_text()
        assert 0 <= source.find(start) < source.find(end)
    links = re.findall(r"\]\(([^):#]+)\)", text)
    assert not [name for name in links if not (page.parent / name).is_file()]


def test_every_kernel_and_objective_is_in_a_table_of_the_readme():
    from numpyro_score import objectives
    from numpyro_score.infer import available_kernels

    text = (ROOT / "README.md").read_text()
    names = [info.kernel.__name__ for info in available_kernels().values()]
    names = [name for name in names if hasattr(__import__("numpyro_score").infer, name)]
    missing = [name for name in [*names, *objectives.__all__] if f"`{name}`" not in text]
    assert not missing


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_are_short_and_can_be_rehearsed(example):
    text = example.read_text()
    assert len(text.splitlines()) < 120
    assert '"--quick"' in text
    assert example.name in (ROOT / "README.md").read_text()
