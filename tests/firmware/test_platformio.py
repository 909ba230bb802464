"""PlatformIO without its registry: firmware/platformio.ini as it is, its platforms stood in for (platformio/).

They prove that the ini, its scripts and the sources build, and build what fedtiny itself builds; not that PlatformIO's
own platforms do: the workflow platformio.yml asks those.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

import fedtiny
from fedtiny.boards import load_board, root
from fedtiny.emulation import (
    DETERMINISTIC,
    capture_sources,
    compile_command,
    core_sources,
    size_flags,
    wire_flags,
    wire_sources,
)
from fedtiny.fleet.manage import enrol
from fedtiny.fleet.roster import read_roster
from fedtiny.images import MARK, SHARED, build_node, node_command, node_of
from fedtiny.link.connection import Connection
from fedtiny.link.session import Identity

from ..fleet.fleets import Lab
from .boards import need
from .platformio.stand_in import BOARDS, FIRMWARE, make, pio

INI = RawConfigParser()
INI.read(FIRMWARE / "platformio.ini")
ENVIRONMENTS = [name.removeprefix("env:") for name in INI.sections() if name.startswith("env:")]
IMAGES = [name for name in ENVIRONMENTS if not name.startswith("test_")]
ON_REGISTERS = {"netduinoplus2": "netduinoplus2", "qemu_netduinoplus2": "qemu-netduinoplus2"}
ON_ARDUINO = [name for name in IMAGES if name not in ON_REGISTERS and name != "native"]
WANTED = ("nucleo_f446re", "blackpill_f411ce", "nucleo_h743zi", "disco_f746ng", "nucleo_l4r5zi")


class Compiled(NamedTuple):
    """A source as PlatformIO compiles it: flags in their order, defines, folders of headers."""

    flags: list[str]
    defines: set[str]
    includes: set[Path]


def need_cppcheck() -> None:
    if not shutil.which("cppcheck"):
        end = pytest.fail if os.environ.get("FEDTINY_ALL_BOARDS") else pytest.skip
        end("cppcheck is missing (make tools gets it)")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    need(load_board("qemu-netduinoplus2"))
    return make(tmp_path_factory.mktemp("platformio"))


def build_folder(stand_in: dict[str, str], name: str) -> Path:
    return Path(stand_in["PLATFORMIO_BUILD_DIR"]) / name


@pytest.fixture(scope="module")
def databases(stand_in: dict[str, str]) -> dict[str, dict[Path, Compiled]]:
    done = pio(stand_in, "run", *(word for name in ENVIRONMENTS for word in ("-e", name)), "-t", "compiledb")
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: database(build_folder(stand_in, name) / "compile_commands.json") for name in ENVIRONMENTS}


def database(path: Path) -> dict[Path, Compiled]:
    found = {}
    for entry in json.loads(path.read_text()):
        source = Path(os.path.normpath(Path(entry["directory"]) / entry["file"]))
        words = shlex.split(entry["command"])
        includes = {Path(os.path.normpath(FIRMWARE / word[2:])) for word in words if word.startswith("-I")}
        defines = {word[2:] for word in words if word.startswith("-D")}
        flags = [word for word in words[1:] if word.startswith("-") and word[:2] not in ("-I", "-D", "-o", "-c")]
        found[source] = Compiled(flags, defines, includes)
    return found


def ours(compiled: dict[Path, Compiled]) -> set[Path]:
    return {path for path in compiled if path.is_relative_to(FIRMWARE)}


@pytest.mark.parametrize("name", ON_REGISTERS)
def test_an_image_on_registers_is_made_of_what_fedtiny_makes_it(
    name: str, databases: dict[str, dict[Path, Compiled]]
) -> None:
    board = load_board(ON_REGISTERS[name])
    node = node_of(board)
    sources = {*core_sources(board.toolchain.variant), *wire_sources()}
    sources |= {FIRMWARE / file for file in (*SHARED, *node.sources, *board.toolchain.sources)}
    assert ours(databases[name]) == sources
    defines = {**node.defines, "NODE_BOARD": f'"{board.name}"', "NODE_BAUD": str(node.baud)}
    assert board.memory is not None
    defines["NODE_FLASH_BYTES"] = f"{board.memory.flash.bytes:#x}"
    told = [*compile_command(board, optimise="-Os", defines=defines), *wire_flags()][1:]
    wanted = {word for word in told if word[:2] not in ("-I", "-D")}
    for path, compiled in databases[name].items():
        if path.suffix == ".c":
            assert wanted <= set(compiled.flags), path
            assert {word[2:] for word in told if word.startswith("-D")} <= compiled.defines
            assert {Path(word[2:]) for word in told if word.startswith("-I")} <= compiled.includes
        else:
            assert set(board.toolchain.machine) <= set(compiled.flags), path


@pytest.mark.parametrize("name", ON_ARDUINO)
def test_an_image_on_arduino_is_the_library_and_the_example(
    name: str, databases: dict[str, dict[Path, Compiled]]
) -> None:
    platform, board = next((p, b) for p, boards in BOARDS.items() for b in boards if b == INI_BOARD[name])
    variant = "m4" if platform == "ststm32" else ""
    sources = {*core_sources(variant), *wire_sources(), FIRMWARE / "port/record.c"}
    sources |= {FIRMWARE / "port/arduino/src/FedtinyNode.cpp", FIRMWARE / "port/platformio/sketch.cpp"}
    assert ours(databases[name]) == sources
    sketch = databases[name][FIRMWARE / "port/platformio/sketch.cpp"]
    assert f'FEDTINY_BOARD="{name}"' in sketch.defines
    memory = next(int(define.partition("=")[2]) for define in sketch.defines if define.startswith("FEDTINY_MEMORY="))
    assert memory % 8 == 0
    assert memory + 24_000 < BOARDS[platform][board][2]  # the wire's state, Arduino's own data, a stack


INI_BOARD = {name: INI[f"env:{name}"].get("board", "") for name in IMAGES}


def test_this_computers_image_is_fedtiny_node(databases: dict[str, dict[Path, Compiled]]) -> None:
    text = (FIRMWARE / "CMakeLists.txt").read_text("utf-8")
    named = re.search(r"add_executable\(fedtiny-node ([^$]*)", text)
    library = re.search(r"add_library\(core OBJECT \$\{core_sources\} ([^)]*)\)", text)
    assert named
    assert library
    sources = {FIRMWARE / file for file in (*named[1].split(), *library[1].split())}
    assert ours(databases["native"]) == {*sources, *core_sources("vector"), *wire_sources(forward_secrecy=True)}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_image_keeps_the_bits(name: str, databases: dict[str, dict[Path, Compiled]]) -> None:
    for path, compiled in databases[name].items():
        if path.suffix == ".c" and path.is_relative_to(FIRMWARE):
            assert set(DETERMINISTIC) <= set(compiled.flags), path
            last = {flag.partition("=")[0]: flag for flag in compiled.flags}
            assert (last["-std"], last["-ffp-contract"]) == ("-std=c99", "-ffp-contract=off")
            assert not {"-ffast-math", "-Ofast", "-funsafe-math-optimizations"} & set(compiled.flags)


def test_there_is_an_environment_for_each_board_that_is_promised() -> None:
    assert {*WANTED, "esp32dev", "esp32s3", "esp32c3", "native"} <= set(IMAGES)
    assert INI["platformio"]["default_envs"] == "native"


def bench(folder: Path, tool: Path) -> Path:
    """A project file of a user's own: the QEMU image, and a tool that puts it on a board."""
    ini = folder / "bench.ini"
    head = f"[platformio]\nextra_configs = {FIRMWARE / 'platformio.ini'}\n"
    how = f"upload_protocol = custom\nupload_command = {sys.executable} {tool} $SOURCE {folder / 'board.bin'}\n"
    ini.write_text(f"{head}[env:bench]\nextends = env:qemu_netduinoplus2\n{how}")
    return ini


FLASHER = """
import shutil, sys
from pathlib import Path
if Path(sys.argv[2] + ".busy").exists():
    sys.exit("port is busy")
shutil.copyfile(sys.argv[1], sys.argv[2])
"""


def test_an_image_is_uploaded_and_what_was_uploaded_joins_a_fleet(stand_in: dict[str, str], tmp_path: Path) -> None:
    tool = tmp_path / "flasher.py"
    tool.write_text(FLASHER)
    upload = ("run", "-c", str(bench(tmp_path, tool)), "-e", "bench", "-t", "upload")
    (tmp_path / "board.bin.busy").touch()
    refused = pio(stand_in, *upload)
    assert (refused.returncode, "port is busy" in refused.stderr) == (1, True)
    assert not (tmp_path / "board.bin").exists()
    (tmp_path / "board.bin.busy").unlink()
    done = pio(stand_in, *upload)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "board.bin").read_bytes() == (build_folder(stand_in, "bench") / "firmware.bin").read_bytes()

    board = load_board("qemu-netduinoplus2")
    lab = Lab(tmp_path / "lab", names=("n1",))
    command = node_command(board, tmp_path / "board.bin", tmp_path / "board.record")
    Lab(lab.folder, names=("n1",), links={"n1": f"process:{shlex.join(command)}"}).write()
    roster = read_roster(lab.file)
    enrol(roster, ())
    key = roster.keys["n1"]

    async def hello() -> tuple[str, bytes]:
        async with Connection(roster.link("n1"), Identity("n1", key=key.key, boot_counter=key.boot_counter)) as node:
            said = await node.reach()
            return said.board, said.firmware

    elf = (build_folder(stand_in, "bench") / "firmware.elf").read_bytes()
    at = elf.index(MARK[:8])
    unsigned = elf[: at + 8] + bytes(8) + elf[at + 16 :]
    assert asyncio.run(hello()) == ("qemu-netduinoplus2", hashlib.sha256(unsigned).digest()[:8])
    theirs, own = (
        symbols(build_folder(stand_in, "bench") / "firmware.elf"),
        symbols(build_node(board, tmp_path / "own.elf")),
    )
    assert theirs[:2] == own[:2]
    assert theirs[2] == pytest.approx(own[2], rel=0.005)  # a whole program in another order of files: a few bytes


def test_a_node_is_compiled_as_a_whole_by_the_same_flags() -> None:
    registers = INI["registers"]
    assert tuple(registers["custom_whole_program"].split()) == size_flags(load_board("qemu-netduinoplus2"), "-Os")
    apart = {Path(source).name for source in load_board("qemu-netduinoplus2").toolchain.sources}
    assert set(registers["custom_apart"].split()) == apart


LAYOUT = ("link_flash", "link_flash_bytes", "link_ram", "link_ram_bytes", "link_stack_bytes")


def symbols(elf: Path) -> tuple[set[str], dict[str, str], int]:
    """Names, the values that the linker was given, and bytes in all."""
    told = subprocess.run(["arm-none-eabi-nm", "-S", elf], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in told.splitlines()]
    sized = [(words[3].partition(".")[0], int(words[1], 16)) for words in lines if len(words) == 4]
    given = {words[2]: words[0] for words in lines if words[-1] in LAYOUT}
    assert len(given) == len(LAYOUT)
    return {name for name, _ in sized}, given, sum(size for _, size in sized)


@pytest.mark.parametrize("name", ["native", "esp32dev"])
def test_an_image_is_built(name: str, stand_in: dict[str, str]) -> None:
    done = pio(stand_in, "run", "-e", name)
    assert done.returncode == 0, done.stdout + done.stderr
    if name == "native":
        program = build_folder(stand_in, name) / "program"
        said = subprocess.run([program, "serve"], capture_output=True, text=True)
        assert "serve" in said.stdout + said.stderr


def test_the_kernels_are_tested_here_and_in_qemu_and_wrong_ones_fail(stand_in: dict[str, str], tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    both = ("test", "-e", "test_native", "-e", "test_qemu")
    done = pio(stand_in, *both, "--junit-output-path", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    cases = [case.get("name") for case in ElementTree.parse(report).iter("testcase")]
    assert cases == ["test_kernels", "test_kernels"]
    fused = pio({**stand_in, "PLATFORMIO_BUILD_FLAGS": "-DFT_FAST"}, "test", "-e", "test_qemu")
    assert fused.returncode == 1
    assert "0 succeeded" in fused.stderr


def test_cppcheck_finds_nothing(stand_in: dict[str, str]) -> None:
    need_cppcheck()
    done = pio(stand_in, "check", "-e", "native", "--fail-on-defect=medium", "--fail-on-defect=high")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No defects found" in done.stdout


def test_cppcheck_finds_what_is_wrong(stand_in: dict[str, str], tmp_path: Path) -> None:
    need_cppcheck()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "wrong.c").write_text("int main(void) { int x[2]; x[2] = 1; return x[0]; }\n")
    ini = (FIRMWARE / "platformio.ini").read_text().replace("src_dir = .", "src_dir = src")
    (tmp_path / "platformio.ini").write_text(ini)
    done = pio(stand_in, "check", "-e", "native", "--fail-on-defect=high", project=tmp_path)
    assert (done.returncode, "wrong.c:1" in done.stdout) == (1, True)


def test_a_project_of_ones_own_takes_the_library(stand_in: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    sketch = FIRMWARE / "port/arduino/examples/BenchNode/BenchNode.ino"
    shutil.copyfile(sketch, tmp_path / "src" / "main.ino")
    head = "[env]\nplatform = ststm32\nframework = arduino\n"
    mine = f"[env:mine]\nboard = blackpill_f411ce\nlib_deps = symlink://{FIRMWARE}\n"
    plain = "[env:plain]\nextends = env:mine\ncustom_fedtiny_kernels = portable\n"
    (tmp_path / "platformio.ini").write_text(head + mine + plain)
    done = pio(stand_in, "run", "-e", "mine", project=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = pio(stand_in, "run", "-e", "mine", "-e", "plain", "-t", "compiledb", project=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, variant in (("mine", "m4"), ("plain", "")):
        compiled = database(build_folder(stand_in, name) / "compile_commands.json")
        sources = {*core_sources(variant), *wire_sources(), *capture_sources(), FIRMWARE / "port/record.c"}
        assert ours(compiled) == {*sources, FIRMWARE / "port/arduino/src/FedtinyNode.cpp"}
        for path in ours(compiled):
            assert path.suffix == ".S" or "-ffp-contract=off" in compiled[path].flags


def test_the_library_names_this_version_and_headers_that_exist() -> None:
    library = json.loads((FIRMWARE / "library.json").read_text("utf-8"))
    assert library["version"] == fedtiny.__version__
    assert all((FIRMWARE / "include" / name).is_file() for name in library["headers"])
    assert library["license"] in (root() / "pyproject.toml").read_text("utf-8")
