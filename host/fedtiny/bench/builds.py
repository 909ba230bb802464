"""The builds of the core that are measured: which sources, which flags. The only place that knows them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from fedtiny import emulation
from fedtiny.boards import Board, load_board
from fedtiny_export.errors import ConfigError

OPTIMISE = "-Os"
"""Of the core, in every row: flash and instructions are those of one and the same build."""
CONTROL_OPTIMISE = "-O3"
HERE = Path(__file__).parent
BOARDS = {"m4f": "qemu-mps2-an386", "m7": "qemu-mps2-an500", "m33": "qemu-mps2-an505"}
"""Short names of targets in the rows, and the boards that stand for them: instructions depend on the core alone."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """`deterministic` gives the same bits everywhere; `fast` may fuse multiply and add.

    `tuned`: with the kernels written for the target; otherwise portable C, which takes less flash.
    """

    name: str
    flags: tuple[str, ...] = ()
    tuned: bool = True


DETERMINISTIC = Build(name="deterministic")
FAST = Build(name="fast", flags=("-DFT_FAST", "-ffp-contract=fast"))
PORTABLE = Build(name="portable", tuned=False)


def board_of(target: str) -> Board:
    """By its short name, or any board by its own."""
    return load_board(BOARDS.get(target, target))


def core(target: str, build: Build) -> list[Path]:
    """The core's sources for a target: tuned where there is a variant and the build wants it, else portable."""
    return emulation.core_sources(board_of(target).toolchain.variant if build.tuned else "")


def program(target: str, build: Build, name: str, folder: Path) -> Path:
    """Compiles one of this package's C programs with the core for a target; returns the ELF file."""
    sources = [HERE / f"{name}.c", *core(target, build)]
    out = folder / f"{name}-{target}-{build.name}.elf"
    if out.exists():
        return out
    return emulation.build(board_of(target), sources, out=out, optimise=OPTIMISE, flags=build.flags)


def control(target: str, folder: Path) -> Path:
    """The plain dense control: no source of the core, the compiler's best."""
    out = folder / f"control-{target}.elf"
    alone = ("-fno-lto",)  # it is one file: the compiler's best is without
    return emulation.build(board_of(target), [HERE / "control.c"], out=out, optimise=CONTROL_OPTIMISE, flags=alone)


def _size(target: str, elf: Path, *options: str) -> list[list[str]]:
    """The lines of the toolchain's size, in words."""
    command = [board_of(target).toolchain.prefix + "size", *options, str(elf)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    return [line.split() for line in done.stdout.splitlines()]


def flash_image(target: str, build: Build, name: str, folder: Path) -> Path:
    """An image of start-up code and one of this package's flash_*.c: none (the core), wire, or node (all of it)."""
    board = board_of(target)
    start = ("port/qemu/start_cortexm.c", "port/freestanding/memory.c")
    bare = board.model_copy(update={"tools": board.toolchain.model_copy(update={"sources": start})})
    out = folder / f"flash-{name}-{target}-{build.name}.elf"
    if out.exists():
        return out
    sources = [HERE / "flash_start.c", HERE / f"flash_{name}.c", *core(target, build)]
    sources += [] if name == "node" else [HERE / "flash.c"]
    sources += [] if name == "none" else emulation.wire_sources()
    flags = (*build.flags, *emulation.wire_flags())
    return emulation.build(bare, sources, out=out, optimise=OPTIMISE, flags=flags)


def flash_bytes(target: str, build: Build, name: str, folder: Path) -> int:
    """Code and constants of a `flash_image`."""
    text, data = _size(target, flash_image(target, build, name, folder))[1][:2]
    return int(text) + int(data)


def bss_bytes(target: str, image: Path) -> int:
    return int(_size(target, image)[1][2])


def static_bytes(target: str, build: Build, folder: Path) -> int:
    """.data and .bss of the program that takes the steps: the board's port and the C library, for the core has none."""
    lines = _size(target, program(target, build, "steps", folder), "-A")
    return sum(int(words[1]) for words in lines if words and words[0] in (".data", ".bss"))
