"""What is missing on this computer, and the exact command that mends it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedtiny.boards import Board, board_names, load_board
from fedtiny.emulation import missing_packages
from fedtiny.flash import tools, usb
from fedtiny_export.errors import ConfigError, FedtinyError

APT = "sudo apt-get install -y --no-install-recommends"


@dataclass(frozen=True, kw_only=True)
class Check:
    """`found`: what is there, or what is wrong. `mend`: the command; "" where there is nothing to mend."""

    what: str
    wanted_for: str
    good: bool
    found: str
    mend: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(folder: Path | None = None) -> list[Check]:
    """Everything that commands of fedtiny use beside Python, and what is plugged in. `folder`: of the user's boards."""
    boards, broken = [], []
    for name in board_names(folder):
        try:
            boards.append(load_board(name, folder))
        except ConfigError as problem:
            broken.append(Check(what=f"board {name}", wanted_for="boards", good=False, found=str(problem)))
    return [
        _core(),
        *broken,
        *_compilers(boards),
        *_emulators(boards),
        _program("mosquitto", "brokers of its own, in tests and bench", f"{APT} mosquitto", also="/usr/sbin/mosquitto"),
        _platformio(boards),
        *_plugged(boards),
    ]


def _core() -> Check:
    from fedtiny_export.core import library_path

    try:
        return Check(what="the C core", wanted_for="every run", good=True, found=str(library_path()))
    except FedtinyError as problem:
        command = f"{sys.executable} -m pip install --force-reinstall fedtiny"
        return Check(what="the C core", wanted_for="every run", good=False, found=str(problem), mend=command)


def _compilers(boards: Iterable[Board]) -> list[Check]:
    users: dict[str, list[Board]] = {}
    for board in boards:
        if board.tools:
            users.setdefault(board.tools.prefix + board.tools.compiler, []).append(board)
    return [_group(program, its, list(its[0].toolchain.packages)) for program, its in users.items()]


def _emulators(boards: Iterable[Board]) -> list[Check]:
    users: dict[str, list[Board]] = {}
    for board in boards:
        if board.emulator:
            users.setdefault(board.emulator.program, []).append(board)
    return [_group(program, its, list(its[0].emulator.packages)) for program, its in users.items() if its[0].emulator]


def _group(program: str, boards: list[Board], packages: list[str]) -> Check:
    wanted = ", ".join(board.name for board in boards)
    missing = [package for package in missing_packages(boards[0]) if package in packages]
    where = shutil.which(program)
    if not missing:
        return Check(what=program, wanted_for=wanted, good=True, found=where or "")
    found = f"{where}, without its C library" if where else "not there"
    return Check(what=program, wanted_for=wanted, good=False, found=found, mend=f"{APT} {' '.join(missing)}")


def _program(name: str, wanted_for: str, mend: str, *, also: str = "") -> Check:
    where = shutil.which(name) or (also if also and os.access(also, os.X_OK) else None)
    return Check(
        what=name, wanted_for=wanted_for, good=bool(where), found=where or "not there", mend="" if where else mend
    )


def _platformio(boards: Iterable[Board]) -> Check:
    wanted = ", ".join(board.name for board in boards if board.built_by == "PlatformIO")
    there = shutil.which("pio") or importlib.util.find_spec("platformio")
    mend = "" if there else f"{sys.executable} -m pip install platformio"
    found = shutil.which("pio") or ("a module of this Python" if there else "not there")
    return Check(what="PlatformIO", wanted_for=wanted, good=bool(there), found=found, mend=mend)


def _plugged(boards: list[Board]) -> list[Check]:
    """For each device that is plugged in and may be a board: whether it can be flashed and talked to."""
    found = []
    for device in usb.plugged():
        its = [board for board in boards if board.flash and device.usb in board.flash.usb]
        talks = [board for board in boards if device.usb in board.link.usb]
        name = f"{device.product or device.usb} {device.name}"
        if its:
            found.append(_tool(name, its[0], device))
        for advice in filter(None, [usb.node_advice(device) if its else None, *map(_port, device.ports)]):
            found.append(Check(what=name, wanted_for=_names(its or talks), good=False, found=advice, mend=_run(advice)))
    return found


def _port(path: str) -> str | None:
    """Only what a command mends: a port that is in use is in use."""
    advice = usb.port_advice(path)
    return advice if advice and "Run:" in advice else None


def _tool(name: str, board: Board, device: usb.Device) -> Check:
    try:
        tool = tools.choose_tool(board, device)
        return Check(what=name, wanted_for=board.name, good=True, found=f"flashed by {tools.program_of(tool)}")
    except ConfigError as problem:
        able = tools.tools_for(board, device)
        return Check(
            what=name, wanted_for=board.name, good=False, found=str(problem),
            mend=tools.PACKAGES[able[0]] if able else "",
        )  # fmt: skip


def _run(advice: str) -> str:
    """The command in a piece of advice."""
    return advice.partition("Run: ")[2].partition(", then")[0]


def _names(boards: Iterable[Board]) -> str:
    return ", ".join(board.name for board in boards) or "its port"
