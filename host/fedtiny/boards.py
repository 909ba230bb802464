"""Boards: one TOML file each, with everything that building for it, flashing it and running on it takes.

A file's name is the board's name. Unknown keys are errors. `native` is this computer. Beside the package's boards there
may be a folder of the user's: ./boards, or the one that is named.
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
    """The board's part of a node image (images.py): what stands behind port/uart/board.h, and the defines it takes.

    `samples_bytes`: of its storage, for samples that a host sends; 0: they lie in RAM beside the model.
    """

    sources: Words
    samples_bytes: int = Field(default=0, ge=0)
    defines: dict[str, str] = {}
    baud: int = Field(default=115_200, ge=1200, le=4_000_000)


Tool = Literal["st-flash", "openocd", "pyocd", "esptool", "dfu-util"]
UsbId = Annotated[str, Field(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]
UsbIds = Annotated[tuple[UsbId, ...], Field(strict=False)]


class Flashing(Section):
    """`usb`: vendor:product of what flashing goes through. `tools`: the first that is installed is taken.

    A tool's value is what it calls the chip: openocd's target file, pyocd's target, esptool's chip; st-flash and
    dfu-util take none. `chip_id`: what an ST-LINK reads from the chip; another one is never written to.
    """

    usb: UsbIds
    tools: Annotated[dict[Tool, str], Field(min_length=1)]
    chip_id: int | None = Field(default=None, ge=0, lt=0x1000)


class LinkPort(Section):
    """`usb`: vendor:product of the board's own serial port; none: it takes an adapter."""

    usb: UsbIds = ()


class PlatformIO(Section):
    """`environment`: of firmware/platformio.ini; `board` and `platform`: what PlatformIO calls them.

    `memory_bytes`: what that environment's node keeps for samples, model and arena.
    """

    environment: str
    board: str
    platform: str
    memory_bytes: Size | None = None


class Board(Section):
    """`fpu`: what the hardware computes of floating point. `documents`: where its figures come from.

    `no_training`: why a model is not trained on it unless that is forced. `memory` and `node`: None for this computer.
    `tools`, in the file `toolchain`: None where PlatformIO builds the node.
    """

    name: str
    title: str
    mcu: str
    core: str
    fpu: Literal["none", "single", "double"]
    clock_hz: int | None = Field(default=None, gt=0)
    documents: Words = ()
    no_training: str = ""
    memory: Memory | None = None
    tools: Toolchain | None = Field(default=None, alias="toolchain")
    node: Node | None = None
    emulator: Emulator | None = None
    flash: Flashing | None = None
    link: LinkPort = LinkPort()
    platformio: PlatformIO | None = None

    @property
    def toolchain(self) -> Toolchain:
        """Raises ConfigError for a board whose programs PlatformIO builds."""
        if self.tools is None:
            way = f"fedtiny build {self.name} (PlatformIO)" if self.platformio else "a section [toolchain] in its file"
            raise ConfigError(f"board {self.name} has no compiler of its own here. Take {way}.")
        return self.tools

    @property
    def baud(self) -> int:
        return self.node.baud if self.node else Node.model_fields["baud"].default

    @property
    def built_by(self) -> Literal["fedtiny", "PlatformIO", "pip"]:
        """What makes the program that runs on it: pip compiled this computer's."""
        if self.node and self.tools:
            return "fedtiny"
        return "PlatformIO" if self.platformio else "pip"


def node_banks(board: Board) -> dict[str, int]:
    """Bytes of RAM that the image of a node leaves, by bank. Raises ConfigError for a board without a [memory]."""
    if not board.memory:
        raise ConfigError(
            f"{board.name} says nothing of its memory, so nothing can be planned for it. "
            "Choose another fleet.board, or set fleet.ram_bytes."
        )
    taken = board.memory.stack_bytes + board.memory.data_bytes
    return {bank.name: max(0, bank.bytes - (taken if not i else 0)) for i, bank in enumerate(board.memory.banks)}


def refuse_training(board: Board, *, force: bool, how: str) -> None:
    """Raises ConfigError for a board whose file says why a model is not trained on it. `how`: what forces it."""
    if board.no_training and not force:
        raise ConfigError(
            f"{board.name} does not train: {board.no_training}. Inference and batch-norm statistics work there. "
            f"To train all the same: {how}"
        )


def root() -> Path:
    """The folder with boards/ and firmware/: the checkout, or what the installed package carries of it."""
    here = Path(__file__).resolve().parent
    for place in (here.parents[1], here / "_source"):
        if (place / "boards").is_dir() and (place / "firmware" / "include" / "fedtiny.h").is_file():
            return place
    raise ConfigError("the boards and the firmware's sources are missing from this installation: pip install fedtiny")


def board_files(own: Path | None = None) -> dict[str, Path]:
    """By name: the package's boards and those in `own` or ./boards. Raises ConfigError where one name is two boards."""
    shipped = root() / "boards"
    if own is not None and not own.is_dir():
        raise ConfigError(f"{own} is no folder. Name the folder that holds your boards' .toml files.")
    folder = own or Path("boards")
    mine = sorted(folder.glob("*.toml")) if folder.is_dir() and folder.resolve() != shipped else []
    found = {path.stem: path for path in sorted(shipped.glob("*.toml"))}
    for path in mine:
        if path.stem in found and path.read_bytes() != found[path.stem].read_bytes():
            raise ConfigError(f"{path}: fedtiny has a board {path.stem} already. Give yours another name.")
        found[path.stem] = path
    return dict(sorted(found.items()))


def board_names(own: Path | None = None) -> tuple[str, ...]:
    return tuple(board_files(own))


def load_board(name: str | Path, own: Path | None = None) -> Board:
    """A board by name, or from a .toml file of one's own. Raises ConfigError naming the key and what is allowed."""
    path = Path(name)
    if path.suffix != ".toml":
        files = board_files(own)
        if name not in files:
            near = difflib.get_close_matches(str(name), files, 1, 0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"there is no board '{name}'.{hint} Boards: {', '.join(files)}. fedtiny board new writes another."
            )
        path = files[str(name)]
    return _load(path.resolve())


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
        board = Board.model_validate({"name": path.stem, **table})
    except ValidationError as error:
        problems = [_problem(detail["loc"], detail["msg"], detail["type"]) for detail in error.errors()]
        raise ConfigError("\n".join([f"{path} cannot be used:", *(f"  - {p}" for p in problems)])) from error
    if board.tools is None and board.platformio is None:
        raise ConfigError(f"{path}: nothing says how programs for it are made. Add [toolchain] or [platformio].")
    return board


def _problem(place: tuple[int | str, ...], message: str, kind: str) -> str:
    key = ".".join(str(part) for part in place)
    if kind != "extra_forbidden":
        return f"{key}: {message[:1].lower()}{message[1:]}"
    allowed = _keys(place[:-1])
    near = difflib.get_close_matches(str(place[-1]), allowed, 1, 0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"unknown key {key}.{hint} Allowed: {', '.join(allowed)}."


_SECTIONS: dict[tuple[str, ...], type[Section]] = {
    (): Board,
    ("memory",): Memory,
    ("memory", "flash"): Region,
    ("memory", "banks"): Bank,
    ("toolchain",): Toolchain,
    ("node",): Node,
    ("emulator",): Emulator,
    ("emulator", "counter"): Counter,
    ("flash",): Flashing,
    ("link",): LinkPort,
    ("platformio",): PlatformIO,
}


def _keys(section: tuple[int | str, ...]) -> list[str]:
    model = _SECTIONS[tuple(str(part) for part in section if isinstance(part, str))]
    return [field.alias or key for key, field in model.model_fields.items() if model is not Board or key != "name"]
