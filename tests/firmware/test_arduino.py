"""The Arduino library: packed, compiled as Arduino's tools do; its example over a stand-in for Arduino's core."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import shlex
import subprocess
import sys
import tty
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fedtiny
from fedtiny.boards import load_board, root
from fedtiny.fleet.manage import enrol
from fedtiny.fleet.native import NativeFleet
from fedtiny.fleet.roster import read_roster
from fedtiny.fleet.wire import WireFleet
from fedtiny.link.connection import Connection
from fedtiny.link.session import Identity
from fedtiny.testing.nodes import Node, native_node

from ..fleet.fleets import Lab, put_data, run_of
from ..host import runs
from .boards import need

STAND_IN = Path(__file__).parent / "stand_in" / "arduino"
SKETCH = root() / "firmware/port/arduino/examples/BenchNode/BenchNode.ino"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
# Arduino's tools: sizes first, GNU's dialects, sections; no flag that keeps the bits, the library sees to that itself.
C_FLAGS = ("-std=gnu17", "-Os", "-ffunction-sections", "-fdata-sections", *WARNINGS)
CXX_FLAGS = ("-std=gnu++14", "-Os", "-fno-exceptions", "-fno-rtti", "-ffunction-sections", *WARNINGS)
M4F = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
M0 = ("-mcpu=cortex-m0plus", "-mthumb")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arduino") / "fedtiny"
    subprocess.run([sys.executable, "scripts/arduino_library.py", str(folder)], check=True, cwd=root())
    return folder


def compile_library(library: Path, out: Path, prefix: str = "", machine: tuple[str, ...] = ()) -> list[Path]:
    """An object of each source below src/, with no include path but that folder and the core's."""
    out.mkdir()
    jobs = []
    for source in sorted((library / "src").rglob("*")):
        place = out / (str(source.relative_to(library / "src")).replace("/", "-") + ".o")
        if source.suffix in (".c", ".S"):
            jobs.append([f"{prefix}gcc", *C_FLAGS, *machine, "-I", str(library / "src"), "-c", source, "-o", place])
        elif source.suffix == ".cpp":
            includes = [f"-I{library / 'src'}", f"-I{STAND_IN}"]
            jobs.append([f"{prefix}g++", *CXX_FLAGS, *machine, *includes, "-c", source, "-o", place])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(lambda job: subprocess.run(job, capture_output=True, text=True), jobs):
            assert done.returncode == 0, done.stderr
    return [Path(job[-1]) for job in jobs]


@pytest.fixture(scope="module")
def objects(library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The library, compiled for this computer."""
    return compile_library(library, tmp_path_factory.mktemp("objects") / "objects")


def link_sketch(library: Path, objects: list[Path], program: Path, *defines: str) -> Path:
    """BenchNode.ino on this computer."""
    includes = [f"-I{library / 'src'}", f"-I{STAND_IN}", "-include", "Arduino.h"]
    command = ["g++", *CXX_FLAGS, *includes, *defines, "-x", "c++", str(SKETCH)]
    subprocess.run(
        [*command, str(STAND_IN / "host" / "core.cpp"), "-x", "none", *objects, "-lm", "-o", program], check=True
    )
    return program


@pytest.fixture(scope="module")
def sketch(library: Path, objects: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_sketch(library, objects, tmp_path_factory.mktemp("sketch") / "BenchNode", "-DFEDTINY_MEMORY=400000")


@pytest.fixture
def lab(sketch: Path, tmp_path: Path) -> Iterator[Lab]:
    """Three sketches on pipes and one on a terminal, none with a key."""
    lab = Lab(tmp_path / "lab")
    commands = {name: f"{shlex.quote(str(sketch))} {shlex.quote(str(lab.record(name)))}" for name in lab.names}
    links = {name: f"process:{command}" for name, command in commands.items()}
    master, slave = pty.openpty()
    tty.setraw(slave)
    links["n4"] = f"pty:{os.ttyname(slave)}"
    lab = Lab(lab.folder, links=links).write()
    node = subprocess.Popen(shlex.split(commands["n4"]), stdin=master, stdout=master)
    os.close(master)
    yield lab
    node.kill()
    node.wait()
    os.close(slave)


def test_sketches_are_enrolled_and_train_the_model_of_the_run_in_process(lab: Lab) -> None:
    native = NativeFleet(list(lab.names))
    put_data(native)
    enrol(read_roster(lab.file), ())
    fleet = WireFleet(read_roster(lab.file))
    try:
        put_data(fleet)
        assert run_of(runs.server(fleet)) == run_of(runs.server(native))
    finally:
        fleet.close()


def test_a_sketch_keeps_its_key_when_the_newer_half_of_its_record_is_torn(lab: Lab) -> None:
    enrol(read_roster(lab.file), ["n1"])
    command = shlex.split(lab.links["n1"].removeprefix("process:"))
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)  # a start that nobody saw
    record = bytearray(lab.record("n1").read_bytes())
    newer = max((0, 128), key=lambda at: int.from_bytes(record[at + 4 : at + 8], "little"))
    record[newer + 40] ^= 0xFF
    lab.record("n1").write_bytes(record)
    roster = read_roster(lab.file)
    device = roster.keys["n1"]

    async def starts() -> int:
        known = Identity("n1", key=device.key, boot_counter=device.boot_counter)
        async with Connection(roster.link("n1"), known) as node:
            return (await node.reach()).boot_counter

    assert asyncio.run(starts()) == device.boot_counter + 1


@pytest.mark.parametrize(("there", "bytes_of_it"), [("1048576", 1 << 20), ("1000000", 163840)], ids=["psram", "none"])
def test_a_sketch_takes_the_psram_that_is_there_and_has_its_own_memory_where_none_is(
    there: str, bytes_of_it: int, library: Path, objects: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same bits, whether its arena lies in one piece or in two."""
    defines = ("-DFEDTINY_PSRAM=1048576", "-DFEDTINY_MEMORY=163840")
    program = link_sketch(library, objects, tmp_path / "BenchNode", *defines)
    monkeypatch.setenv("PSRAM_BYTES", there)
    lab = Lab(tmp_path / "lab", ("n1",), links={"n1": f"process:{program} {tmp_path}/n1.record"}).write()
    told: list[int] = []
    enrol(read_roster(lab.file), ["n1"], enrolled=lambda node, hello: told.append(hello.arena_bytes))
    assert told == [bytes_of_it]
    updates = []
    fleet = WireFleet(read_roster(lab.file))
    try:
        for node in (Node(fleet, "n1"), native_node()):
            node.put_data(*runs.samples(40, seed=1))
            node.load(runs.model())
            updates.append(node.train(lr=0.05))
    finally:
        fleet.close()
    assert updates[0].values.tobytes() == updates[1].values.tobytes()


def test_a_sketch_that_cannot_store_its_record_says_so_and_stays_silent(sketch: Path) -> None:
    node = subprocess.Popen([str(sketch), "/nonexistent/record"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert node.stdout is not None
    line = node.stdout.readline()
    node.kill()
    node.wait()
    assert line == b"fedtiny: the record cannot be stored, so this node stays silent\r\n"


@pytest.mark.parametrize(("machine", "variant"), [(M4F, "m4"), (M0, "")], ids=["m4f", "m0"])
def test_the_library_compiles_for_arm_with_the_kernels_that_suit_it_and_fuses_nothing(
    machine: tuple[str, ...], variant: str, library: Path, tmp_path: Path
) -> None:
    need(load_board("qemu-netduinoplus2"))
    objects = compile_library(library, tmp_path / "objects", "arm-none-eabi-", machine)
    names = [re.sub(r"^core-(op-)?|\.o$", "", path.name) for path in objects]
    code = subprocess.run(["arm-none-eabi-objdump", "-d", *objects], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"\bvfn?m[as]\.\S*", code) == []
    sizes = subprocess.run(["arm-none-eabi-size", *objects], capture_output=True, text=True, check=True).stdout
    text = dict(zip(names, (int(line.split()[0]) for line in sizes.splitlines()[1:]), strict=True))
    for kernel in ("taps", "pointwise"):
        assert (text[f"{kernel}.c"] == 0, text[f"{kernel}_m4.c"] == 0) == (variant == "m4", variant != "m4")


def test_the_library_names_this_version_and_this_header() -> None:
    properties = (root() / "firmware/port/arduino/library.properties").read_text("utf-8")
    found = dict(line.split("=", 1) for line in properties.splitlines())
    assert (found["version"], found["includes"]) == (fedtiny.__version__, "FedtinyNode.h")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    done = subprocess.run(
        [sys.executable, "scripts/arduino_library.py", str(tmp_path)], cwd=root(), capture_output=True, text=True
    )
    assert (done.returncode, "is not empty" in done.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
