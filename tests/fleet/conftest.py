from __future__ import annotations

from pathlib import Path

import pytest

from .fleets import Lab, environment


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Four nodes that have no key yet."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return Lab(tmp_path / "lab").write()
