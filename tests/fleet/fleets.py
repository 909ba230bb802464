"""Fleet files whose nodes are programs on this computer."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Lab:
    """A fleet file in a folder of its own. The nodes are `tests.link.core_node` with their records beside it."""

    folder: Path
    names: tuple[str, ...] = ("n1", "n2", "n3", "n4")
    head: str = "patience_s = 20\n"
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "lab.toml"

    @property
    def keys(self) -> Path:
        return self.folder / "lab.keys"

    def record(self, name: str) -> Path:
        return self.folder / f"{name}.record"

    def command(self, name: str) -> str:
        return f"{shlex.quote(sys.executable)} -m tests.link.core_node {name} {shlex.quote(str(self.record(name)))}"

    def write(self) -> Lab:
        self.folder.mkdir(parents=True, exist_ok=True)
        nodes = [f'[nodes.{n}]\nlink = """{self.links.get(n, f"process:{self.command(n)}")}"""\n' for n in self.names]
        self.file.write_text(self.head + "\n".join(nodes))
        return self


def python_path() -> str:
    """For programs that start in another folder."""
    return os.pathsep.join(path for path in (str(ROOT), *sys.path) if path)
