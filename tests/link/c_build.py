"""Builds test programs and libraries of the wire's C sources."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fedtiny.emulation import core_sources, wire_flags, wire_sources

ROOT = Path(__file__).parents[2]
TARGET = Path(__file__).parent / "target"
FLAGS = ["-std=c99", "-O2", "-g", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'firmware/include'}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc on this machine")


def sources() -> list[Path]:
    """The core and all of the wire."""
    return [*core_sources(), *wire_sources(forward_secrecy=True)]


def build(out: Path, files: list[Path], *flags: str) -> Path:
    command = ["gcc", *FLAGS, *wire_flags(), *flags, "-o", out, *files, *([] if "-c" in flags else ["-lm"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("gcc has no sanitizers here: apt-get install libasan8 libubsan1")
    assert done.returncode == 0, done.stderr
    return out
