"""Programs for boards: compile and link them, run them in an emulator (or on this computer), count instructions.

A program is C with an ordinary main that uses fedtiny.h and port.h. Counts are exact and the same in every run:
emulated time moves with executed instructions, not with a clock. They are instructions, not cycles: the emulator knows
neither caches nor wait states.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fedtiny.boards import Board, root
from fedtiny_export.errors import ConfigError, FleetError

# The same bits on every target: no fused multiply-add, no reassociation.
DETERMINISTIC = ("-std=c99", "-ffp-contract=off", "-fno-math-errno")
WHOLE_PROGRAM = ("-flto",)
SMALLER = ("-fno-ipa-cp", "-fno-schedule-insns2", "-fno-tree-loop-distribute-patterns")
"""What -Os of GCC 12 still does for speed. With the compiler seeing all of a program at once: 2.2 KB less of a node,
the same bits, the same instructions."""
FAULT = 99
"""Exit code of a program that faulted: an access outside of memory, an undefined instruction."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a program ended. `instructions`: from main's start to its end, where they were counted."""

    exit_code: int
    output: str
    instructions: int | None = None


def core_sources(variant: str = "") -> list[Path]:
    """The core's sources. With a variant its files (x_<variant>.c, .S) stand in for the portable x.c.

    Raises ConfigError for a variant that has no file.
    """
    source = root() / "firmware" / "src"
    return _of_variant([source, source / "op"], variant, "the core")


def infer_sources(variant: str = "") -> list[Path]:
    """The inference engine's sources, to be compiled with `infer_flags`; a variant as in `core_sources`."""
    return _of_variant([root() / "firmware" / "infer"], variant, "the inference engine")


def infer_flags(board: Board) -> list[str]:
    """Where the inference engine's header is, and for RISC-V what keeps its sums in registers: GCC's scheduler would
    load all samples of a tile before it multiplies the first."""
    scheduler = ["-fno-schedule-insns"] if board.core.startswith("rv32") else []
    return [f"-I{root() / 'firmware' / 'infer'}", *scheduler]


def _of_variant(folders: Sequence[Path], variant: str, whose: str) -> list[Path]:
    files = sorted(path for folder in folders for end in ("*.c", "*.S") for path in folder.glob(end))
    stems = {path.stem for path in files}
    portable = {stem for stem in stems if not any(stem.startswith(f"{other}_") for other in stems)}
    variants = {stem.removeprefix(f"{other}_") for stem in stems for other in portable if stem.startswith(f"{other}_")}
    if variant and variant not in variants:
        raise ConfigError(f"{whose} has no variant '{variant}'. Choose one of {', '.join(sorted(variants))}.")
    replaced = {stem for stem in portable if variant and f"{stem}_{variant}" in stems}
    wanted = portable - replaced | {f"{stem}_{variant}" for stem in replaced}
    return [path for path in files if path.stem in wanted]


def wire_sources(*, forward_secrecy: bool = False) -> list[Path]:
    """The node's end of the wire and its libraries, to be compiled with the core's sources and `wire_flags`."""
    firmware = root() / "firmware"
    files = sorted((firmware / "src" / "wire").glob("*.c"))
    exchange = [path for path in files if path.stem == "x25519"]
    return [
        *(path for path in files if forward_secrecy or path not in exchange),
        firmware / "lib" / "monocypher.c",
    ]


def capture_sources() -> list[Path]:
    """Rings and windows for applications that take their own samples."""
    return sorted((root() / "firmware" / "src" / "capture").glob("*.c"))


def wire_flags() -> list[str]:
    """What the compiler needs to find the wire's library."""
    return [f"-I{root() / 'firmware' / 'lib' / 'monocypher'}"]


def missing_packages(board: Board) -> list[str]:
    """Debian packages that building for the board and running on it still take; empty when all is there."""
    missing = list(board.tools.packages) if board.tools and not _compiles(board) else []
    if board.emulator and not shutil.which(board.emulator.program):
        missing += board.emulator.packages
    return missing


def _compiles(board: Board) -> bool:
    compiler = shutil.which(board.toolchain.prefix + board.toolchain.compiler)
    if not compiler or not board.toolchain.prefix or "-nostdlib" in board.toolchain.link:
        return compiler is not None
    # a cross compiler and its C library are packages of their own; a file that is not found is printed as it was given
    told = subprocess.run([compiler, "-print-file-name=libc.a"], capture_output=True, text=True, check=False).stdout
    return "/" in told


def need_tools(board: Board) -> None:
    """Raises ConfigError with the command that installs what is missing."""
    missing = missing_packages(board)
    if missing:
        raise ConfigError(
            f"board {board.name} needs {' and '.join(missing)}. Install with: "
            f"sudo apt-get install -y --no-install-recommends {' '.join(missing)}"
        )


def compile_command(board: Board, *, optimise: str = "-O2", defines: Mapping[str, str] | None = None) -> list[str]:
    """The compiler and its flags for one file, less input and output."""
    tools, firmware = board.toolchain, root() / "firmware"
    includes = [firmware / "include", firmware / "port", firmware / "src", *(firmware / i for i in tools.include)]
    return [
        tools.prefix + tools.compiler,
        *DETERMINISTIC,
        "-Wall",
        "-Wextra",
        "-ffunction-sections",
        "-fdata-sections",
        *tools.machine,
        optimise,
        *(f"-I{path}" for path in includes),
        *(f"-D{name}={value}" for name, value in {**_counter_defines(board), **(defines or {})}.items()),
    ]


def size_flags(board: Board, optimise: str) -> tuple[str, ...]:
    """Flags of cross compilers besides compile_command's. The board's own port is built without: its calls stay calls,
    so that what is counted between two of them stays exact."""
    if not board.toolchain.prefix:
        return ()
    return (*WHOLE_PROGRAM, *(SMALLER if optimise == "-Os" else ()))


def build(
    board: Board,
    sources: Sequence[Path],
    *,
    out: Path,
    defines: Mapping[str, str] | None = None,
    optimise: str = "-O2",
    flags: Sequence[str] = (),
) -> Path:
    """Compiles the sources with the board's own port, links them, and returns `out`, an ELF file.

    `flags` come last and so win. Raises ConfigError when a tool is missing or a source does not compile.
    """
    need_tools(board)
    tools, firmware = board.toolchain, root() / "firmware"
    whole = size_flags(board, optimise)
    command = compile_command(board, optimise=optimise, defines=defines)
    files = [(path, whole) for path in sources] + [(firmware / source, ()) for source in tools.sources]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [Path(folder) / f"{number}-{path.name}.o" for number, (path, _) in enumerate(files)]
        jobs = [
            [*command, *more, *flags, "-c", str(path), "-o", str(made)]
            for (path, more), made in zip(files, objects, strict=True)
        ]
        list(pool.map(_tool, jobs))
        script = ["-T", str(firmware / tools.linker_script)] if tools.linker_script else []
        layout = [f"-Wl,--defsym={name}={value}" for name, value in _layout(board).items()]
        quiet = ["-Wl,--gc-sections", *(["-Wl,--no-warn-rwx-segments"] if tools.linker_script else [])]
        link = [*command, *whole, *flags, *tools.link, *layout, *script, *quiet]
        _tool([*link, *map(str, objects), *tools.libraries, "-o", str(out)])
    return out


def run(
    board: Board,
    elf: Path,
    *,
    arguments: Sequence[str] = (),
    folder: Path | None = None,
    count: bool = False,
    timeout_s: float = 60.0,
    plugin: str | None = None,
) -> Outcome:
    """Runs a program. `arguments`: main's argv[1:], without blanks. `folder`: where its file names begin.
    `plugin`: what an emulator's -plugin takes.

    With `count` the instructions are counted; on a board without an emulator they stay None. Raises ConfigError when
    the emulator is missing, FleetError when it fails or the program does not end in time. A program's own failure is an
    exit code.
    """
    need_tools(board)
    odd = [argument for argument in arguments if not argument or any(c in argument for c in " ,\n")]
    if odd:
        raise ConfigError(f"a program on a board cannot take the argument {odd[0]!r}: no blanks, no commas.")
    counted = count and board.emulator is not None
    command = [str(elf.resolve()), *arguments]
    if board.emulator:
        command = [*_emulator(board, elf, arguments, counted), *(("-plugin", plugin) if plugin else ())]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode(errors="replace")[-500:]
        raise FleetError(
            f"{elf.name} on {board.name} did not end in {timeout_s:g} s. Allow more time or ask for less work. "
            f"It had printed: {said!r}"
        ) from late
    output = done.stdout.decode(errors="replace")
    if board.emulator:
        _raise_if_failed(board.emulator.program, done.stderr.decode(errors="replace"))
    instructions = None
    if counted and COUNT_LINE in output:  # one that faulted or called port_exit has no count
        output, _, number = output.rpartition(COUNT_LINE)
        instructions = int(number)
    return Outcome(exit_code=done.returncode, output=output, instructions=instructions)


COUNT_LINE = "\ninstructions "
"""What the port prints after main has returned, before the count, when its argv[0] is "count"."""


def _emulator(board: Board, elf: Path, arguments: Sequence[str], counted: bool) -> list[str]:
    emulator = board.emulator
    assert emulator is not None
    words = ["count" if counted else "run", *arguments]
    semihosting = ",".join(["enable=on,target=native,chardev=console", *(f"arg={word}" for word in words)])
    return [
        emulator.program,
        *("-M", emulator.machine, *emulator.arguments),
        *("-nodefaults", "-display", "none", "-monitor", "none", "-serial", "none"),
        *("-chardev", "stdio,id=console,signal=off"),
        *("-semihosting-config", semihosting),
        *(("-icount", f"shift={emulator.icount_shift},sleep=off") if counted else ()),
        *("-kernel", str(elf.resolve())),
    ]


def _raise_if_failed(program: str, said: str) -> None:
    """An emulator's exit code is the program's, so what it says decides; it warns of things that do not matter here."""
    errors = [line for line in said.splitlines() if line.strip() and "warning:" not in line]
    if errors:
        raise FleetError(f"{program} failed: {' '.join(errors)[:300]}. Is it version 7.2 or newer?")


def _counter_defines(board: Board) -> dict[str, str]:
    if not board.emulator or not board.emulator.counter:
        return {}
    counter = board.emulator.counter
    defines = {"PORT_NS": f"{1 << board.emulator.icount_shift}u", "PORT_TICK_NS": f"{counter.tick_ns}u"}
    return defines if counter.timer is None else {**defines, "PORT_TIMER": f"{counter.timer:#x}u"}


def _layout(board: Board) -> dict[str, str]:
    if not board.memory:
        return {}
    flash, ram = board.memory.flash, board.memory.banks[0]
    numbers = {
        "link_flash": flash.origin,
        "link_flash_bytes": flash.bytes,
        "link_ram": ram.origin,
        "link_ram_bytes": ram.bytes,
        "link_stack_bytes": board.memory.stack_bytes,
    }
    return {name: hex(number) for name, number in numbers.items()}


def _tool(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise ConfigError(f"{command[0]} failed:\n{done.stderr.strip()[-2000:]}\nThe command was: {' '.join(command)}")
