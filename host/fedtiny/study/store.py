"""The folder of a study: one file for each finished cell, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtiny.study.plan import Cell, Study
from fedtiny_export.errors import ConfigError

STUDY = "study.toml"
CELLS = "cells"


class Store:
    """`path`: the study's folder; it is made when the first cell is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def finished(self, cell: Cell) -> dict[str, Any] | None:
        """What came of a cell, or None where it has not finished (a damaged file counts as none)."""
        found = self._read(cell)
        return found if found is not None and "failed" not in found else None

    def failed(self, cell: Cell) -> str | None:
        """Why a cell failed when it was last tried, or None."""
        found = self._read(cell)
        return None if found is None else found.get("failed")

    def keep(self, cell: Cell, outcome: Mapping[str, Any]) -> None:
        about = {
            "key": cell.key, "data": cell.data, "method": cell.method, "density": cell.density, "alpha": cell.alpha,
            "seed": cell.seed, "axes": dict(cell.axes),
        }  # fmt: skip
        self._write(self._file(cell), json.dumps(about | dict(outcome), indent=1) + "\n")

    def keep_study(self, study: Study) -> None:
        self._write(self.path / STUDY, study.text)

    def write(self, name: str, text: str) -> Path:
        """A file of the report."""
        self._write(self.path / name, text)
        return self.path / name

    def _file(self, cell: Cell) -> Path:
        return self.path / CELLS / f"{cell.key}.json"

    def _read(self, cell: Cell) -> dict[str, Any] | None:
        try:
            found = json.loads(self._file(cell).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("key") == cell.key else None

    def _write(self, target: Path, text: str) -> None:
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ConfigError(f"cannot write {target}: {error.strerror}. Make room or choose another --out.") from None
