"""The examples of applications that take their own samples: in QEMU and on this computer, asked by a host while they
capture. The sensors are synthetic; the rest is what a board would run.
"""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from fedtiny.boards import load_board, root
from fedtiny.emulation import capture_sources, core_sources, wire_flags, wire_sources
from fedtiny.flash.make import make
from fedtiny.images import SHARED, build_node, image_size, node_command
from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Answer, Job
from fedtiny.link.links import open_link
from fedtiny.link.messages import ObjectKind, TaskKind
from fedtiny.link.objects import Payload
from fedtiny.link.session import Identity
from fedtiny.models import build as build_net
from fedtiny_export.blob import write_blob
from fedtiny_export.core import MODES, CoreNode
from fedtiny_export.errors import ConfigError
from fedtiny_export.torch_in import from_torch

from ..firmware.boards import need
from .c_build import needs_gcc
from .lesson import KEY, Lesson, assert_same_bits, run, write_record

FIRMWARE = root() / "firmware"
STM32 = "qemu-netduinoplus2"
ALL = 1


@dataclass(frozen=True)
class Example:
    """`samples`: those with a label, of the development set among them, once all was captured."""

    name: str
    shape: tuple[int, int, int]
    classes: int
    samples: int
    dev_samples: int
    outlives: bool

    @property
    def app(self) -> Path:
        return FIRMWARE / "examples" / self.name

    @property
    def blob(self) -> bytes:
        net = build_net("watch-net", input_shape=self.shape, classes=self.classes, width=4, norm="group")
        model = from_torch(net, self.shape)
        return write_blob(model.graph, model.arrays, {})


# 5,000 readings are 77 windows. The ring has the four of the development set and the last 36, in six of which the
# activity changed. Of 60 knocks each fifth is nobody's.
EXAMPLES = [
    Example("accelerometer", (6, 1, 128), 3, 34, 4, outlives=False),
    Example("button", (1, 1, 64), 2, 48, 4, outlives=True),
]


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda example: example.name)
def example(request: pytest.FixtureRequest) -> Example:
    found: Example = request.param
    return found


@pytest.fixture(scope="module", params=["posix", STM32])
def link(request: pytest.FixtureRequest, example: Example, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp(example.name)
    record = write_record(folder / "n1.record", "n1")
    if request.param != "posix":
        board = need(load_board(STM32))
        image = build_node(board, folder / "node.elf", app=example.app, flags=["-Werror"])
        return "process:" + shlex.join(node_command(board, image, record))
    return "process:" + shlex.join([str(on_this_computer(example.app, folder / "node")), str(record)])


def on_this_computer(app: Path, out: Path, *others: Path) -> Path:
    """`others`: in place of the sources of the same names, with what these include."""
    port = [FIRMWARE / name for name in (*SHARED, *(f"port/posix/{name}.c" for name in ("board", "port", "storage")))]
    sources = [*core_sources(), *wire_sources(), *capture_sources(), *sorted(app.glob("*.c"))]
    sources += [path for path in port if path.name != "receive.c"]
    names = {path.name for path in others}
    folders = {path.parent for path in sources if path.name in names} | {app}
    sources = [path for path in sources if path.name not in names] + list(others)
    flags = ["-std=c99", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", *wire_flags()]
    flags += [f"-I{FIRMWARE / folder}" for folder in ("include", "port", "src")]
    flags += [f"-I{folder}" for folder in sorted(folders)]
    subprocess.run(["gcc", *flags, '-DNODE_BOARD="posix"', "-DNODE_BAUD=0", *sources, "-lm", "-o", out], check=True)
    return out


async def asked(host: Connection, job: Job) -> Answer:
    answer = await host.ask(job)
    assert answer.status == 0, answer.problem
    return answer


async def captured(host: Connection, example: Example) -> None:
    """Waits until all samples are there; on a busy machine a ring may stay at that number for a while on its way."""
    async with asyncio.timeout(60):
        seen: list[object] = []
        while seen[-8:] != [(example.samples, example.dev_samples)] * 8:
            await asyncio.sleep(0.3)
            seen.append((await asked(host, Job(TaskKind.DESCRIBE))).results)
    print(f"{example.name}: (labelled, development set) = {seen}")


async def loss(host: Connection, example: Example) -> float:
    answer = await asked(host, Job(TaskKind.EVALUATE, parameters=(ALL, 0)))
    assert answer.results == (example.samples,)
    return float(np.frombuffer(answer.objects[0].data, "<f8", 1)[0]) / example.samples


@needs_gcc
def test_a_node_trains_on_what_it_captures_and_its_loss_falls(example: Example, link: str) -> None:
    modes = MODES["train"] | MODES["infer"]
    load = Job(
        TaskKind.LOAD,
        parameters=(4, 0, 0, 0, modes, 0, 0, 0, 0, 0, 0),
        objects=(Payload(ObjectKind.MODEL, example.blob),),
    )
    samples = Payload(ObjectKind.SAMPLES, bytes(4))

    async def work() -> None:
        async with Connection(open_link(link), Identity("n1", key=KEY)) as host:
            await asked(host, load)  # before the first sample is there
            await captured(host, example)
            before = await loss(host, example)
            for seed in range(3):
                train = Job(TaskKind.TRAIN, parameters=(4, 4 * seed, 0.05, 0.9, 0.0, 0))
                assert (await asked(host, train)).results[0] == example.samples
            after = await loss(host, example)
            print(f"{example.name}: loss {before:.3f}, then {after:.3f}")
            assert after < before / 2
            refused = await host.ask(Job(TaskKind.PUT_DATA, parameters=(0, 0, 0, 0, 1), objects=(samples,)))
            assert refused.problem == "the node has samples of its own"
        async with Connection(open_link(link), Identity("n1", key=KEY)) as host:  # started anew
            samples_now, dev_samples_now = (await asked(host, Job(TaskKind.DESCRIBE))).results
            assert not example.outlives or (samples_now >= example.samples and dev_samples_now == example.dev_samples)
            assert host.hello is not None
            assert host.hello.boot_counter == 2

    run(work())


@needs_gcc
def test_an_application_that_infers_at_each_turn_costs_the_host_no_task(tmp_path: Path) -> None:
    """Neither what an INSTALL brings nor what a TRAIN gives is touched, and between tasks it does infer."""
    node, record = on_this_computer(Path(__file__).parent / "infers", tmp_path / "node"), tmp_path / "n1.record"
    inferred, lesson = record.with_name("n1.record.inferred"), Lesson(epochs=1)
    start = CoreNode(lesson.blob, lesson.config).values()
    install = Job(TaskKind.INSTALL, objects=(Payload(ObjectKind.VALUES, bytes(4) + start.tobytes()),))
    put, load, train = lesson.jobs()
    load = replace(load, parameters=(*load.parameters[:4], MODES["train"] | MODES["infer"], *load.parameters[5:]))
    write_record(record, "n1")

    async def work() -> None:
        async with Connection(open_link(f"process:{node} {record}"), Identity("n1", key=KEY)) as host:
            for job in (put, load):
                await asked(host, job)
            for _ in range(3):
                before = inferred.stat().st_size if inferred.exists() else 0
                await asked(host, install)
                answer = await asked(host, train)
                values, moments = (np.frombuffer(payload.data[4:], "<f4") for payload in answer.objects)
                assert_same_bits((values, moments), lesson)
                await asked(host, Job(TaskKind.REPORT))
                await asyncio.sleep(0.1)
                assert inferred.stat().st_size > before

    run(work())


@needs_gcc
def test_a_knock_without_a_label_in_a_full_ring_leaves_a_node_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the place of one with a label, and the node does not ask for that any more."""
    storage = (FIRMWARE / "port/posix/storage.c").read_text("utf-8")
    assert "SAMPLES_BYTES = 1 << 30" in storage
    (tmp_path / "storage.c").write_text(storage.replace("SAMPLES_BYTES = 1 << 30", "SAMPLES_BYTES = 0"), "utf-8")
    device = Path(__file__).parent / "knocks/device_synthetic.c"
    example, last = EXAMPLES[1], tmp_path / "last"
    node = on_this_computer(example.app, tmp_path / "node", tmp_path / "storage.c", device)
    monkeypatch.setenv("LAST_KNOCK", str(last))
    load = Job(
        TaskKind.LOAD,
        parameters=(4, 0, 0, 0, MODES["train"], 0, 0, 0, 0, 0, 0),
        objects=(Payload(ObjectKind.MODEL, example.blob),),
    )

    async def work() -> None:
        record = write_record(tmp_path / "n1.record", "n1")
        async with Connection(open_link(f"process:{node} {record}"), Identity("n1", key=KEY)) as host:
            train = Job(TaskKind.TRAIN, parameters=(1, 0, 0.05, 0.9, 0.0, 0))
            await captured(host, replace(example, samples=24, dev_samples=3))
            await asked(host, load)
            assert (await asked(host, train)).results[0] == 24
            last.touch()
            await captured(host, replace(example, samples=23, dev_samples=3))
            assert (await asked(host, train)).results[0] == 23

    run(work())


def test_an_example_is_built_for_the_chip_itself(example: Example, tmp_path: Path) -> None:
    board = need(load_board("netduinoplus2"))
    size = image_size(board, build_node(board, tmp_path / "node.elf", app=example.app, flags=["-Werror"]))
    print(f"{example.name}: {size.flash} bytes of flash, {size.ram} of RAM")
    assert board.memory is not None
    assert size.flash < board.memory.flash.bytes


def test_the_command_builds_an_application_or_says_who_does(tmp_path: Path) -> None:
    app = EXAMPLES[1].app
    need(load_board(STM32))
    made = make(load_board(STM32), tmp_path, app=app)
    assert made.size.flash > 0
    with pytest.raises(ConfigError, match="esp32c3 is built by PlatformIO: put the application's sources"):
        make(load_board("esp32c3"), tmp_path, app=app)


def test_a_folder_without_sources_is_no_application(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no C source"):
        build_node(need(load_board(STM32)), tmp_path / "node.elf", app=tmp_path)
