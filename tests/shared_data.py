"""Reference data that lies beside the project where its founders work, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2] / "shared" / "data"


def shared_data(name: str) -> Path:
    """Folder of reference data, or a visible skip of the calling module."""
    folder = _ROOT / name
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} is absent", allow_module_level=True)
    return folder
