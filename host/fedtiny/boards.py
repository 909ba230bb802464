"""Boards: one TOML file each, with everything that building for it and running on it takes.

A file's name is the board's name. Unknown keys are errors. `native` is this computer.
"""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fedtiny_export.errors import ConfigError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _multiple_of_8(value: int) -> int:
    if value % 8:
        raise ValueError("must be a multiple of 8")
    return value


Address = Annotated[int, Field(ge=0, lt=2**32), AfterValidator(_multiple_of_8)]
Size = Annotated[int, Field(gt=0, lt=2**31), AfterValidator(_multiple_of_8)]
Words = Annotated[tuple[str, ...], Field(strict=False)]


class Region(Section):
    """A contiguous piece of the address space."""

    origin: Address
    bytes: Size


class Bank(Region):
    """A piece of RAM; the first of a board holds stack and data too."""

    name: str = Field(min_length=1)


class Memory(Section):
    """`banks`: the fastest first. `data_bytes`: what a node's image may have in data and bss."""

    flash: Region
    banks: Annotated[tuple[Bank, ...], Field(min_length=1, max_length=4, strict=False)]
    stack_bytes: Size = 8192
    data_bytes: Size = 8192


class Toolchain(Section):
    """How to compile and link. Paths are relative to the firmware folder; `packages` are Debian's.

    `variant`: the tuned kernels that suit this core (emulation.core_sources); empty: portable C.
    """

    prefix: str
    compiler: str = "gcc"
    packages: Words = ()
    variant: str = ""
    machine: Words = ()
    include: Words = ()
    link: Words = ()
    libraries: Words = ()
    linker_script: str | None = None
    sources: Words = ()


class Counter(Section):
    """A timer that tells executed instructions from emulated time."""

    tick_ns: int = Field(ge=1)
    timer: Address | None = None


class Emulator(Section):
    """`icount_shift`: an instruction takes 2**shift emulated nanoseconds when instructions are counted."""

    program: str
    machine: str
    packages: Words = ()
    arguments: Words = ()
    icount_shift: int = Field(default=0, ge=0, le=10)
    counter: Counter | None = None


class Node(Section):
    """The board's part of a node image (images.py): what stands behind port/uart/board.h, and the defines it takes."""

    sources: Words
    defines: dict[str, str] = {}
    baud: int = Field(default=115_200, ge=1200, le=4_000_000)


class Board(Section):
    """`fpu`: what the hardware computes of floating point. `memory`, `node` and `emulator`: None for this computer."""

    name: str
    title: str
    mcu: str
    core: str
    fpu: Literal["none", "single", "double"]
    clock_hz: int | None = Field(default=None, gt=0)
    memory: Memory | None = None
    toolchain: Toolchain
    node: Node | None = None
    emulator: Emulator | None = None


def node_banks(board: Board) -> dict[str, int]:
    """Bytes of RAM that the image of a node leaves, by bank. Raises ConfigError for a board without a [memory]."""
    if not board.memory:
        raise ConfigError(
            f"{board.name} says nothing of its memory, so nothing can be planned for it. "
            "Choose another fleet.board, or set fleet.ram_bytes."
        )
    taken = board.memory.stack_bytes + board.memory.data_bytes
    return {bank.name: max(0, bank.bytes - (taken if not i else 0)) for i, bank in enumerate(board.memory.banks)}


def root() -> Path:
    """The folder with boards/ and firmware/: the checkout, or what the installed package carries of it."""
    here = Path(__file__).resolve().parent
    for place in (here.parents[1], here / "_source"):
        if (place / "boards").is_dir() and (place / "firmware" / "include" / "fedtiny.h").is_file():
            return place
    raise ConfigError("the boards and the firmware's sources are missing from this installation: pip install fedtiny")


def board_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (root() / "boards").glob("*.toml")))


def load_board(name: str | Path) -> Board:
    """A board by name, or from a .toml file of one's own. Raises ConfigError naming the key and what is allowed."""
    path = Path(name)
    if path.suffix != ".toml":
        path = root() / "boards" / f"{name}.toml"
        if not path.is_file():
            near = difflib.get_close_matches(str(name), board_names(), 1, 0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"there is no board '{name}'.{hint} Boards: {', '.join(board_names())}.")
    return _load(path)


@cache
def _load(path: Path) -> Board:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Give a board's name or the path of its .toml file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid TOML: {error}. Mend the file.") from error
    if "name" in table:
        raise ConfigError(f"{path}: a board's name is its file's name. Remove the key name.")
    try:
        return Board.model_validate({"name": path.stem, **table})
    except ValidationError as error:
        problems = [_problem(detail["loc"], detail["msg"], detail["type"]) for detail in error.errors()]
        raise ConfigError("\n".join([f"{path} cannot be used:", *(f"  - {p}" for p in problems)])) from error


def _problem(place: tuple[int | str, ...], message: str, kind: str) -> str:
    key = ".".join(str(part) for part in place)
    if kind != "extra_forbidden":
        return f"{key}: {message[:1].lower()}{message[1:]}"
    allowed = _keys(place[:-1])
    near = difflib.get_close_matches(str(place[-1]), allowed, 1, 0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"unknown key {key}.{hint} Allowed: {', '.join(allowed)}."


_SECTIONS: dict[str, type[Section]] = {
    "memory": Memory,
    "flash": Region,
    "banks": Bank,
    "toolchain": Toolchain,
    "node": Node,
    "emulator": Emulator,
    "counter": Counter,
}


def _keys(section: tuple[int | str, ...]) -> list[str]:
    names = [str(part) for part in section if isinstance(part, str)]
    model = _SECTIONS[names[-1]] if names else Board
    return [key for key in model.model_fields if model is not Board or key != "name"]
