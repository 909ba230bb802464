"""What goes onto a board: its node image, by the compiler here or by PlatformIO, as the board's file says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fedtiny.boards import Board, root
from fedtiny.images import ImageSize, build_node, firmware_of, image_size, raw_image
from fedtiny_export.errors import ConfigError

# Where a bootloader lies that an ESP32's ROM starts; then the table of partitions and the first application.
BOOTLOADER = {"esp32": 0x1000}
PARTITIONS, APPLICATION = 0x8000, 0x10000


@dataclass(frozen=True, kw_only=True)
class Made:
    """`parts`: addresses and files, in the order of addresses. `firmware`: what its node will say; None: not known."""

    board: Board
    elf: Path
    parts: tuple[tuple[int, Path], ...]
    size: ImageSize
    firmware: bytes | None


def make(board: Board, folder: Path, *, app: Path | None = None) -> Made:
    """Builds the board's node, with an application beside it, in a folder of its own below `folder`.

    Raises ConfigError with what is missing.
    """
    if board.built_by == "pip":
        raise ConfigError(f"board {board.name} has no image: its node is the program fedtiny-node, which is installed.")
    if app is not None and board.built_by != "fedtiny":
        raise ConfigError(
            f"board {board.name} is built by {board.built_by}: put the application's sources into that project, "
            "with the library firmware/library.json."
        )
    out = folder / board.name
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigError(f"cannot write to {out}: {problem.strerror}. Choose another --out.") from None
    made = _by_compiler(board, out, app) if board.built_by == "fedtiny" else _by_platformio(board, out)
    room = board.memory.flash.bytes if board.memory else None
    if room is not None and made.size.flash > room:
        raise ConfigError(f"{made.elf} takes {made.size.flash:,} bytes of flash, and {board.name} has {room:,} for it.")
    return made


def _by_compiler(board: Board, out: Path, app: Path | None) -> Made:
    elf = build_node(board, out / f"{board.name}.elf", app=app)
    start = board.memory.flash.origin if board.memory else 0
    return Made(
        board=board,
        elf=elf,
        parts=((start, raw_image(board, elf)),),
        size=image_size(board, elf),
        firmware=firmware_of(elf),
    )


def platformio() -> list[str] | None:
    """The command that starts PlatformIO; None: it is not installed."""
    found = shutil.which("pio") or shutil.which("platformio")
    if found:
        return [found]
    return [sys.executable, "-m", "platformio"] if find_spec("platformio") else None


def _by_platformio(board: Board, out: Path) -> Made:
    plan = board.platformio
    assert plan is not None
    command = platformio()
    if command is None:
        raise ConfigError(
            f"board {board.name} is built by PlatformIO. Install it: {sys.executable} -m pip install platformio"
        )
    command += ["run", "-d", str(root() / "firmware"), "-e", plan.environment]
    workspace = out / "platformio"
    done = subprocess.run(
        command,
        env={**os.environ, "PLATFORMIO_WORKSPACE_DIR": str(workspace.resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr + done.stdout).strip()[-1500:]
        raise ConfigError(
            f"PlatformIO could not build {plan.environment}:\n{said}\nThe command was: {' '.join(command)}\n"
            f"It gets the platform {plan.platform} from the network the first time."
        )
    folder = workspace / "build" / plan.environment
    return Made(
        board=board,
        elf=folder / "firmware.elf",
        parts=_parts(board, folder),
        size=ImageSize(flash=_used(done.stdout, "Flash"), ram=_used(done.stdout, "RAM")),
        firmware=None,
    )


def _parts(board: Board, folder: Path) -> tuple[tuple[int, Path], ...]:
    chip = board.flash.tools.get("esptool") if board.flash else None
    if chip is None:
        return ((board.memory.flash.origin if board.memory else 0, folder / "firmware.bin"),)
    return (
        (BOOTLOADER.get(chip, 0), folder / "bootloader.bin"),
        (PARTITIONS, folder / "partitions.bin"),
        (APPLICATION, folder / "firmware.bin"),
    )


def _used(said: str, what: str) -> int:
    found = re.search(rf"^{what}:.*used (\d+) bytes", said, re.MULTILINE)
    return int(found[1]) if found else 0
