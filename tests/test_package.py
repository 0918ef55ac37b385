"""The package as a whole: what its import does, who may import whom, what is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import numpyro_score

ROOT = Path(numpyro_score.__file__).parent
NAME = ROOT.name

# What a room may import, and with it all that those may.
ROOMS = {
    "_typing": set(),
    "_precision": {"_typing"},
    "_threefry": {"_typing"},
    "_checks": {"_typing", "_precision"},
    "_array_file": {"_typing"},
    "_contents": {"_array_file", "_checks"},
    "networks": {"_checks"},
    "sde": {"networks"},
    "samplers": {"networks", "sde"},
    "objectives": {"samplers"},
    "distributions": {"samplers"},
    "infer": {"distributions", "_contents", "_threefry"},
    "training": {"objectives", "distributions", "_contents"},
    "diagnostics": {"distributions", "infer"},
    "_description": {"samplers"},
    "persistence": {"training", "infer", "diagnostics", "_array_file", "_description"},
    "plotting": {"training", "infer", "diagnostics"},
}
MAX_LINES = 300


# -- import ------------------------------------------------------------------------------------


def fresh(code):
    """Run code in a new interpreter in which every warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


def test_import_is_silent_and_light():
    """Neither device arrays nor heavy optional packages beyond those of the dependencies."""
    done = fresh(
        "import sys, jax, blackjax, equinox, numpyro, optax\n"
        "arrays, modules = len(jax.live_arrays()), set(sys.modules)\n"
        f"import {NAME}\n"
        "assert len(jax.live_arrays()) == arrays, jax.live_arrays()[arrays:]\n"
        "heavy = {'arviz', 'flax', 'matplotlib', 'sklearn'} & (set(sys.modules) - modules)\n"
        "assert not heavy, heavy\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_flax_matplotlib_and_sklearn_stay_out_altogether():
    optional = {"flax", "matplotlib", "sklearn"}
    done = fresh(f"import sys, {NAME}; assert not {optional} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_live_arrays_would_show_an_array():
    """The control: what the check above looks at does change."""
    done = fresh("import jax, jax.numpy as jnp; x = jnp.ones(3); assert not jax.live_arrays()")
    assert "AssertionError" in done.stderr


# -- rooms -------------------------------------------------------------------------------------


def may_import(room):
    """Return all rooms that ``room`` may import, itself included."""
    return {room}.union(*(may_import(above) for above in ROOMS[room]))


def imported_rooms(source):
    """Yield ``(line, room)`` for each import of this package in the code, at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = [f"{NAME}.relative"]  # not used here: the room is to be read at a glance
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == NAME:
                yield node.lineno, rest.partition(".")[0]


def offenders(source, room):
    """Return the imports in the code that ``room`` may not make."""
    return [
        (line, other) for line, other in imported_rooms(source) if other not in may_import(room)
    ]


def sources():
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_file_lies_in_a_room():
    assert {room_of(path) for path in sources()} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_upward(room):
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for path in sources()
        if room_of(path) == room
        for line, other in offenders(path.read_text(), room)
    ]
    assert not found, f"{room} may import {sorted(may_import(room))}: {found}"


@pytest.mark.parametrize(
    ("room", "code"),
    [
        ("samplers", "from numpyro_score.infer import MALA"),
        ("samplers", "def f():\n    import numpyro_score.distributions.base as b"),
        ("networks", "from numpyro_score import training"),
        ("objectives", "from numpyro_score.distributions import EnergyDistribution"),
        ("infer", "from ..training import fit"),
    ],
)
def test_an_import_downward_is_found(room, code):
    assert len(offenders(code, room)) == 1
    assert not offenders("import numpy, numpyro.infer\nfrom numpyro_score._checks import x", room)


# -- documentation and size --------------------------------------------------------------------


def public():
    rooms = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    for room in sorted(rooms):
        module = importlib.import_module(f"{NAME}.{room}")
        for name in module.__all__:
            yield pytest.param(module, name, id=f"{room}.{name}")


@pytest.mark.parametrize(("module", "name"), list(public()))
def test_public_names_say_what_they_are(module, name):
    obj = getattr(module, name)
    doc = vars(obj).get("__doc__") if inspect.isclass(obj) else obj.__doc__
    assert doc, f"{module.__name__}.{name} has no docstring of its own"
    assert not doc.startswith(f"{name}("), "generated, not written"
    assert module.__doc__


def test_what_the_readme_shows_and_runs_is_there():
    readme = ROOT.parent / "README.md"
    text = readme.read_text()
    named = re.findall(r"\]\(([^):]+)\)", text) + re.findall(r"python (\S+\.py)", text)
    assert len(named) >= 3
    assert not [name for name in named if not (readme.parent / name).is_file()]


def test_every_room_lists_its_names():
    assert len(list(public())) >= 20


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_enough_to_read(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{path.relative_to(ROOT)} has {lines} lines: split it"
