"""The command, run in this process, in an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedtiny.cli import app


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Fedtiny = Callable[..., Outcome]


@pytest.fixture
def fedtiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fedtiny:
    """`fedtiny("run", "quick")` as a user would type it in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        done = CliRunner().invoke(app, list(arguments))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Outcome(done.exit_code, done.stdout, done.stderr)

    return call
