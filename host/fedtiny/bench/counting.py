"""Exact counts: the emulator runs each case once and twice, and the difference is the work alone."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtiny import emulation
from fedtiny.bench import builds
from fedtiny.bench.cases import Case, case_file
from fedtiny_export.errors import ConfigError, FleetError

Block = tuple[int, int]  # address and number of its instructions


def _numbers(outcome: emulation.Outcome, word: str) -> list[int]:
    if outcome.exit_code:
        raise FleetError(f"the benchmark's program failed: {outcome.output.strip()!r}. Is the model too large for it?")
    return [int(line.split()[1]) for line in outcome.output.splitlines() if line.startswith(f"{word} ")]


@dataclass(frozen=True)
class Cost:
    """What a case takes on a board: `instructions` of one inference or training step; bytes of arena and stack."""

    instructions: int
    arena: int
    stack: int


def count_cases(target: str, build: builds.Build, cases: Sequence[Case], folder: Path) -> dict[Case, Cost]:
    """Stack is the deepest of loading and working, measured."""
    board, elf = builds.board_of(target), builds.program(target, build, "steps", folder)
    costs: dict[Case, Cost] = {}
    for first in range(0, len(cases), 40):  # a program takes 64 arguments
        some = cases[first : first + 40]
        files = [f"{first + i}.case" for i in range(len(some))]
        for file, case in zip(files, some, strict=True):
            (folder / file).write_bytes(case_file(case))
        once, twice = (
            emulation.run(board, elf, arguments=[repeats, *files], folder=folder, count=True) for repeats in "12"
        )
        columns = (_numbers(once, "case"), _numbers(twice, "case"), _numbers(once, "arena"), _numbers(once, "stack"))
        for case, one, two, arena, stack in zip(some, *columns, strict=True):
            costs[case] = Cost(two - one, arena, stack)
    return costs


def count_control(target: str, data: bytes, folder: Path) -> int:
    """Instructions of one step of the plain dense control; its new weights are left in control.out."""
    elf = builds.control(target, folder)
    (folder / "control.in").write_bytes(data)
    counts = [
        _numbers(
            emulation.run(
                builds.board_of(target), elf, arguments=[n, "control.in", "control.out"], folder=folder, count=True
            ),
            "case",
        )[0]
        for n in "21"
    ]
    return counts[0] - counts[1]


def plugin(folder: Path) -> Path:
    """The emulator's plugin, compiled for this computer. Raises ConfigError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise ConfigError(
            "modelled cycles need a C compiler here: sudo apt-get install -y --no-install-recommends gcc libc6-dev"
        )
    out = folder / "blocks.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(out), str(builds.HERE / "blocks.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"the emulator's plugin does not compile: {done.stderr[-800:]}")
    return out


def blocks_of(target: str, elf: Path, arguments: Sequence[str], folder: Path) -> tuple[Counter[Block], Counter[Block]]:
    """Executions of each block of instructions, and how many of them ended in a taken branch, for one more repeat."""
    executed: list[Counter[Block]] = []
    taken: list[Counter[Block]] = []
    library = plugin(folder)
    for repeats in "21":
        out = folder / f"blocks.{repeats}"
        emulation.run(
            builds.board_of(target), elf, arguments=[repeats, *arguments], folder=folder, count=True,
            plugin=f"{library},out={out}",
        )  # fmt: skip
        executed.append(Counter())
        taken.append(Counter())
        for line in out.read_text("ascii").splitlines():
            start, length, times, jumps = map(int, line.split())
            executed[-1][start, length] += times
            taken[-1][start, length] += jumps
    executed[0].subtract(executed[1])
    taken[0].subtract(taken[1])
    return executed[0], taken[0]
