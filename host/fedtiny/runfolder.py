"""The folder of a run: created once, each file written whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedtiny_export.errors import ConfigError

CONFIG = "config.toml"
JOURNAL = "run.db"
METRICS = "metrics.jsonl"
RESULT = "result.json"
ONNX = "model.onnx"
BLOB = "model.ftm"
TFLITE = "model.tflite"
TFLITE_INT8 = "model-int8.tflite"
REPORT = "report.html"
CARD = "model_card.md"


class RunFolder:
    """A run's folder by its path; its last part is the run's id."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: tuple[Path, ...] = ()

    @property
    def run_id(self) -> str:
        return self.path.resolve().name

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """A new, empty folder. Raises ConfigError where it exists or cannot be written."""
        path = Path(path)
        absent = tuple(parent for parent in path.parents if not parent.exists())
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise ConfigError(
                f"the run folder {path} exists already. Choose another with --out, or look at it: fedtiny report {path}"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"cannot create the run folder {path}: {error.strerror}. Choose a folder that you may write with --out."
            ) from None
        folder = cls(path)
        folder._made = absent
        return folder

    @classmethod
    def fresh(cls, stem: str, *, under: str | Path = "runs") -> RunFolder:
        """A new folder `<under>/<stem>-<n>` with the first n from 1 that is free."""
        for number in itertools.count(1):
            path = Path(under) / f"{stem}-{number}"
            if not path.exists():
                return cls.create(path)
        raise AssertionError("counting ends nowhere")

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The folder of an earlier run. Raises ConfigError where it is none."""
        folder = cls(Path(path))
        if not (folder.path / CONFIG).is_file():
            raise ConfigError(
                f"{path} is no run folder: it has no {CONFIG}. Name one that `fedtiny run` made{_some()}."
            )
        return folder

    def file(self, name: str) -> Path:
        return self.path / name

    def has(self, name: str) -> bool:
        return self.file(name).is_file()

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises ConfigError where the run has not written it."""
        try:
            return self.file(name).read_bytes()
        except OSError:
            raise ConfigError(
                f"{self.path} has no {name}: the run has not finished. Go on with it: fedtiny run --resume {self.path}"
            ) from None

    def write(self, name: str, data: bytes | str) -> None:
        """Writes a file under another name and renames it: a reader sees the old one or the whole new one."""
        target = self.file(name)
        partial = target.with_name(f".{name}.part")
        try:
            with partial.open("wb") as stream:
                stream.write(data.encode() if isinstance(data, str) else data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ConfigError(f"cannot write {target}: {error.strerror}. Make room or choose another --out.") from None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.write(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    def result(self) -> dict[str, Any]:
        """result.json. Raises ConfigError where there is none or it is damaged."""
        try:
            found: dict[str, Any] = json.loads(self.read(RESULT))
        except ValueError:
            raise ConfigError(
                f"{self.file(RESULT)} is damaged. Write it anew: fedtiny run --resume {self.path}"
            ) from None
        return found

    def discard(self) -> None:
        """Removes the folder, all in it and the empty parents made for it: for a run that never began."""
        shutil.rmtree(self.path, ignore_errors=True)
        for parent in self._made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _some() -> str:
    runs = sorted(path.parent for path in Path("runs").glob(f"*/{CONFIG}"))
    return f", for example {runs[-1]}" if runs else ""
