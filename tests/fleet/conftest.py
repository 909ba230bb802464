from __future__ import annotations

from pathlib import Path

import pytest

from .fleets import Lab, python_path


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Four nodes that have no key yet."""
    monkeypatch.setenv("PYTHONPATH", python_path())
    return Lab(tmp_path / "lab").write()
