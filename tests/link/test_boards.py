"""Node images on emulated boards, over the emulator's UART: what a chip would run, asked as a host asks it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import socket
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedtiny.boards import board_names, load_board
from fedtiny.images import build_node, image_size, node_command
from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Job
from fedtiny.link.links import open_link
from fedtiny.link.messages import ObjectKind, TaskKind
from fedtiny.link.objects import Payload
from fedtiny.link.session import Identity
from fedtiny_export.errors import ConfigError, NodeRestarted
from tests.firmware.boards import need

from .brokers import free_port
from .lesson import KEY, Lesson, assert_same_bits, boots, run, taught, write_record

LESSON = Lesson()
NODES = [name for name in board_names() if load_board(name).node]
EMULATED = [name for name in NODES if load_board(name).emulator]
STM32 = "qemu-netduinoplus2"
WINDOW = 8  # blocks that a node on 115,200 baud has under way


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By board, as they are asked for: built once."""
    folder = tmp_path_factory.mktemp("images")

    class Images(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = build_node(need(load_board(name)), folder / f"{name}.elf", flags=["-Werror"])
            return self[name]

    return Images()


def link(name: str, image: Path, record: Path) -> str:
    return "process:" + shlex.join(node_command(load_board(name), image, record))


@contextlib.asynccontextmanager
async def node(
    board: str, images: dict[str, Path], folder: Path, device: str = "n1", *, log: list[str] | None = None
) -> AsyncIterator[Connection]:
    record = folder / f"{device}.record"
    if not record.exists():
        write_record(record, device)
    lines = log if log is not None else []
    async with Connection(
        open_link(link(board, images[board], record)), Identity(device, key=KEY), on_log=lines.append
    ) as connection:
        yield connection


def emulator_of(connection: Connection) -> int:
    """The process behind the link."""
    line = connection._line
    return int(line._process.pid)  # type: ignore[union-attr]


def test_nodes_on_three_boards_learn_at_once_with_the_cores_bits(images: dict[str, Path], tmp_path: Path) -> None:
    """Two Cortex-M4F with the tuned kernels, one RISC-V without floating point, at the same time."""

    async def work() -> None:
        boards = {"n1": STM32, "n2": STM32, "n3": "qemu-rv32"}
        async with contextlib.AsyncExitStack() as stack:
            hosts = [
                await stack.enter_async_context(node(board, images, tmp_path, name)) for name, board in boards.items()
            ]
            for host, found in zip(hosts, await asyncio.gather(*(taught(host, LESSON) for host in hosts)), strict=True):
                assert_same_bits(found, LESSON)
                assert host.hello is not None
                assert host.hello.board == boards[host.device]
                assert host.hello.firmware not in (bytes(8), None)

    run(work())


@pytest.mark.parametrize("name", [name for name in EMULATED if name.startswith("qemu-mps2")])
def test_the_other_boards_learn_the_same(name: str, images: dict[str, Path], tmp_path: Path) -> None:
    async def work() -> None:
        async with node(name, images, tmp_path) as host:
            assert_same_bits(await taught(host, LESSON), LESSON)

    run(work())


def test_what_a_board_says_before_its_first_frame_goes_to_the_log(images: dict[str, Path], tmp_path: Path) -> None:
    async def work() -> None:
        log: list[str] = []
        async with node(STM32, images, tmp_path, log=log) as host:
            await host.reach()
            assert log == [f"fedtiny node on {STM32}"]
            assert host.traffic.dropped == {}

    run(work())


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("name", EMULATED)
def test_a_node_that_nobody_asks_sleeps(name: str, images: dict[str, Path], tmp_path: Path) -> None:
    """Its processor waits for an interrupt: the emulator, too, has nothing to do. A loop would take all of a core."""

    async def work() -> float:
        async with node(name, images, tmp_path) as host:
            await host.ask(Job(TaskKind.DESCRIBE))
            await asyncio.sleep(0.3)
            pid = emulator_of(host)
            before, start = cpu_s(pid), time.monotonic()
            await asyncio.sleep(1.5)
            return (cpu_s(pid) - before) / (time.monotonic() - start)

    share = run(work())
    print(f"{name}: {share:.1%} of a core")
    assert share < 0.05


@pytest.mark.parametrize("name", [STM32, "qemu-rv32"])
def test_a_board_killed_in_the_middle_of_a_transfer_is_taught_again_under_a_higher_boot_counter(
    name: str, images: dict[str, Path], tmp_path: Path
) -> None:
    async def work() -> None:
        async with node(name, images, tmp_path) as host:
            asked = asyncio.create_task(host.ask(LESSON.jobs()[0]))
            while host.traffic.down_frames["data.samples"] < 8:
                await asyncio.sleep(0.001)
            os.kill(emulator_of(host), 9)
            with pytest.raises(NodeRestarted, match="n1"):
                await asked
            assert host.hello is not None
            assert host.hello.boot_counter == boots(tmp_path / "n1.record") == 2
            assert_same_bits(await taught(host, LESSON), LESSON)

    run(work())


def test_a_line_that_is_cut_goes_on_where_it_was(images: dict[str, Path], tmp_path: Path) -> None:
    """The emulator lives on, and its UART is a socket: only what was under way is sent again."""

    async def work() -> None:
        record, port = write_record(tmp_path / "n1.record", "n1"), free_port()
        serial = f"tcp:127.0.0.1:{port},server=on,wait=on,nodelay=on"
        emulator = await asyncio.create_subprocess_exec(
            *node_command(load_board(STM32), images[STM32], record, serial=serial)
        )
        try:
            await until_heard(port)
            samples = LESSON.jobs()[0]
            blocks = -(-len(samples.objects[0].data) // (1024 - 8))
            async with Connection(open_link(f"tcp:127.0.0.1:{port}"), Identity("n1", key=KEY)) as host:
                asked = asyncio.create_task(host.ask(samples))
                while host.traffic.down_frames["data.samples"] < 12:
                    await asyncio.sleep(0.001)
                host._line.transport.abort()  # type: ignore[union-attr]
                assert (await asked).status == 0
                assert host.traffic.sessions == 2
                assert host.traffic.down_frames["data.samples"] <= blocks + WINDOW
                assert boots(record) == 1
        finally:
            emulator.kill()
            await emulator.wait()

    run(work())


async def until_heard(port: int) -> None:
    """Until something listens there; without a connection, which would be the emulator's one and only."""
    for _ in range(500):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                return
        await asyncio.sleep(0.02)
    raise TimeoutError(f"nothing listens at port {port}")


@pytest.mark.parametrize("name", ["fedtiny-node", STM32, "qemu-rv32"])
def test_a_node_that_was_killed_runs_its_last_model_and_does_not_ask_for_it(
    name: str, images: dict[str, Path], tmp_path: Path
) -> None:
    """Two files beside the record hold models; the newest one is there before anything is sent."""
    record, log, sent = write_record(tmp_path / "n1.record", "n1"), list[str](), list[int]()
    program = f"process:{Path(sys.executable).with_name('fedtiny-node')} serve {record}"

    async def work() -> None:
        for start in range(3):
            it = open_link(program if name == "fedtiny-node" else link(name, images[name], record))
            async with Connection(it, Identity("n1", key=KEY), on_log=log.append) as host:
                report = await host.ask(Job(TaskKind.REPORT))
                assert report.results is not None
                assert (report.results[0] > 0) == (start > 0), "the arena of a model that runs"
                assert_same_bits(await taught(host, LESSON), LESSON)
                sent.append(host.traffic.down["data.model"])

    run(work())
    assert sent[0] > len(LESSON.blob)
    assert sent[1:] == [0, 0]
    assert sum("the last model is here" in line for line in log) == (0 if name == "fedtiny-node" else 2)
    assert sorted(path.name for path in tmp_path.glob("n1.record.model-?")) == ["n1.record.model-0"], "saved once"


@pytest.mark.parametrize("name", [STM32, "qemu-rv32"])
def test_a_lesson_leaves_a_third_of_the_stack_untouched(name: str, images: dict[str, Path], tmp_path: Path) -> None:
    """Wire, cryptography, training: the emulator's RAM starts as zeros, and the stack's deepest bytes still are."""
    board = load_board(name)
    assert board.memory is not None
    at, size = board.memory.banks[0].origin, board.memory.stack_bytes

    async def work() -> bytes:
        record, monitor = write_record(tmp_path / "n1.record", "n1"), tmp_path / "monitor"
        command = [*node_command(board, images[name], record), "-qmp", f"unix:{monitor},server=on,wait=off"]
        async with Connection(open_link("process:" + shlex.join(command)), Identity("n1", key=KEY)) as host:
            assert_same_bits(await taught(host, LESSON), LESSON)
            dump = {"val": at, "size": size, "filename": str(tmp_path / "stack")}
            return await asked_of_the_monitor(monitor, dump)

    stack = run(work())
    deepest = size - (len(stack) - len(stack.lstrip(b"\0")))
    print(f"{name}: {deepest} of {size} bytes of stack")
    assert size / 8 < deepest < size * 2 / 3


async def asked_of_the_monitor(monitor: Path, dump: dict[str, object]) -> bytes:
    reader, writer = await asyncio.open_unix_connection(monitor)
    for command in ({"execute": "qmp_capabilities"}, {"execute": "pmemsave", "arguments": dump}):
        writer.write(json.dumps(command).encode())
        while "return" not in (answer := json.loads(await reader.readline())):
            assert "error" not in answer, answer
    writer.close()
    return Path(str(dump["filename"])).read_bytes()


def test_an_image_fits_its_board_and_says_how_much_it_takes(images: dict[str, Path]) -> None:
    for name in NODES:
        board = load_board(name)
        size = image_size(board, images[name])
        assert board.memory is not None
        print(f"{name:20} {size.flash:6} bytes of flash, {size.ram:5} of RAM beside the stack")
        assert size.flash < board.memory.flash.bytes
        assert size.ram < 8192


def test_the_line_carries_some_ten_thousand_bytes_a_second(images: dict[str, Path], tmp_path: Path) -> None:
    """As fast as the emulator hands them over, one at a time; no claim about a chip."""

    async def work() -> float:
        async with node(STM32, images, tmp_path) as host:
            await host.reach()
            samples = Payload(ObjectKind.SAMPLES, bytes(4) + bytes(60_000) + bytes(2 * 75))
            start = time.monotonic()
            answer = await host.ask(Job(TaskKind.PUT_DATA, parameters=(0, 75, 75, 0, 200), objects=(samples,)))
            assert answer.status == 0, answer.problem
            return len(samples.data) / (time.monotonic() - start)

    rate = run(work())
    print(f"{rate / 1000:.1f} kB/s to the board")
    assert rate > 3000


def test_the_image_for_the_chip_itself_starts_and_will_not_go_on_without_its_record(
    images: dict[str, Path], tmp_path: Path
) -> None:
    """In the emulator, which has no flash controller: the record, read back, is not what was written."""

    async def work() -> None:
        image = images["netduinoplus2"]
        command = node_command(load_board(STM32), image, tmp_path / "unused")
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"fedtiny node on netduinoplus2\r\n"
            assert (await process.stdout.readline()).startswith(b"the record cannot be stored")
        finally:
            process.kill()
            await process.wait()

    run(work())


def test_a_board_without_a_node_image_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"board native has no node image: its file has no section \[node\]"):
        build_node(load_board("native"), tmp_path / "none")


def test_a_board_that_is_no_emulator_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"netduinoplus2 has no emulator\. Flash the image"):
        node_command(load_board("netduinoplus2"), tmp_path / "image", tmp_path / "record")


def test_a_path_that_an_emulator_would_take_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot take the path"):
        node_command(need(load_board(STM32)), tmp_path / "image", tmp_path / "a, b")
