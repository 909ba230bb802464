"""Node images: core, wire and a board's port, linked to one program that joins a fleet over the board's UART."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtiny import emulation
from fedtiny.boards import Board, Node, root
from fedtiny.emulation import build, capture_sources, core_sources, need_tools, wire_flags, wire_sources
from fedtiny_export.errors import ConfigError

SHARED = ("port/uart/main.c", "port/uart/receive.c", "port/record.c")
MARK = b"fedtiny:" + bytes(8)


@dataclass(frozen=True, kw_only=True)
class ImageSize:
    """Bytes of flash (code, constants, initial data) and of RAM (static data; the stack and a model's memory apart)."""

    flash: int
    ram: int


def node_of(board: Board) -> Node:
    """Raises ConfigError for a board that has no node image."""
    if board.node is None:
        raise ConfigError(
            f"board {board.name} has no node image: its file has no section [node]. firmware/PORTING.md says how to "
            "write one."
        )
    return board.node


def build_node(
    board: Board, out: Path, *, app: Path | None = None, optimise: str = "-Os", flags: Sequence[str] = ()
) -> Path:
    """Compiles the node image of a board; returns `out`, an ELF file.

    `app`: a folder of C sources, an application beside the node (firmware/port/uart/app.h). Raises ConfigError as
    emulation.build does, and where the folder has no source.
    """
    node = node_of(board)
    firmware = root() / "firmware"
    sources = [*core_sources(board.toolchain.variant), *wire_sources()]
    sources += [firmware / name for name in (*SHARED, *node.sources)]
    if app is not None:
        own = sorted(app.glob("*.c"))
        if not own:
            raise ConfigError(f"{app} has no C source. Give a folder like firmware/examples/accelerometer.")
        sources += [*own, *capture_sources()]
    defines = {**node.defines, "NODE_BOARD": f'"{board.name}"', "NODE_BAUD": str(node.baud)}
    if board.memory is not None:
        defines["NODE_FLASH_BYTES"] = f"{board.memory.flash.bytes:#x}"
    build(board, sources, out=out, optimise=optimise, defines=defines, flags=[*wire_flags(), *flags])
    _sign(out)
    return out


def kept_node(board: Board, folder: Path) -> Path:
    """Where the node image of today's sources and board file lies in `folder`, once it was built."""
    firmware = root() / "firmware"
    told = hashlib.sha256(repr(board).encode() + Path(__file__).read_bytes() + Path(emulation.__file__).read_bytes())
    for part in ("include", "src", "lib", "port"):
        for path in sorted((firmware / part).rglob("*.*")):
            told.update(f"{path.relative_to(firmware)}\0".encode() + path.read_bytes())
    return folder / f"{board.name}-{told.hexdigest()[:12]}.elf"


def keep_node(board: Board, folder: Path) -> Path:
    """The node image in `folder`, built if it is not there yet; those of older sources go. Raises ConfigError."""
    image = kept_node(board, folder)
    if image.is_file():
        return image
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            os.replace(build_node(board, Path(workshop) / "node.elf"), image)
        for old in folder.glob(f"{board.name}-{'?' * 12}.elf"):
            if old != image:
                old.unlink(missing_ok=True)
    except OSError as problem:
        raise ConfigError(f"cannot keep an image in {folder}: {problem.strerror}.") from None
    return image


def _sign(elf: Path) -> None:
    """Writes the first 8 bytes of the image's SHA-256 behind its mark: what the node says of its firmware."""
    image = elf.read_bytes()
    if image.count(MARK) != 1:
        raise ConfigError(
            f"{elf}: the mark of a node image is not in it just once. Was firmware/port/uart/main.c changed?"
        )
    elf.write_bytes(image.replace(MARK, MARK[:8] + hashlib.sha256(image).digest()[:8]))


def firmware_of(elf: Path) -> bytes:
    """What a node of this image says of its firmware: 8 bytes."""
    image = elf.read_bytes()
    return image[image.index(MARK[:8]) + 8 :][:8]


def raw_image(board: Board, elf: Path) -> Path:
    """The bytes that go to the start of the board's flash, beside the ELF file."""
    raw = elf.with_suffix(".bin")
    command = [board.toolchain.prefix + "objcopy", "-O", "binary", str(elf), str(raw)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    return raw


def image_size(board: Board, elf: Path) -> ImageSize:
    tool = board.toolchain.prefix + "size"
    done = subprocess.run([tool, "-A", str(elf)], capture_output=True, text=True, check=True)
    words = (line.split() for line in done.stdout.splitlines())
    sizes = {word[0]: int(word[1]) for word in words if len(word) == 3 and word[1].isdigit()}
    flash = sum(sizes.get(name, 0) for name in (".text", ".ARM.exidx", ".data"))
    return ImageSize(flash=flash, ram=sizes.get(".data", 0) + sizes.get(".bss", 0))


def node_command(board: Board, elf: Path, record: Path, *, serial: str = "stdio") -> list[str]:
    """Runs the node image of an emulated board. `serial`: what QEMU's -serial takes; `record`: a file, made if missing.

    With `stdio` the UART is standard input and output: a `process:` link. Raises ConfigError without an emulator.
    """
    node_of(board)
    if board.emulator is None:
        raise ConfigError(f"board {board.name} has no emulator. Flash the image to the board and use a serial: link.")
    need_tools(board)
    odd = [str(path) for path in (elf, record) if any(c in str(path) for c in " ,\n")]
    if odd:
        raise ConfigError(f"an emulated node cannot take the path {odd[0]!r}: no blanks, no commas.")
    emulator = board.emulator
    return [
        emulator.program,
        *("-M", emulator.machine, *emulator.arguments),
        *("-nodefaults", "-display", "none", "-monitor", "none"),
        *("-chardev", "null,id=console"),
        *("-semihosting-config", f"enable=on,target=native,chardev=console,arg=node,arg={record.resolve()}"),
        *("-serial", serial),
        *("-kernel", str(elf.resolve())),
    ]
