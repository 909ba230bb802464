"""Real carriers: terminals, sockets, programs; what breaks is opened again, what cannot be opened says what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import pty
import shlex
import subprocess
import sys
import termios
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import serial
import serial.tools.list_ports

from fedtiny.bench.paced import paced_terminal
from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Job
from fedtiny.link.links import open_link
from fedtiny.link.messages import TaskKind
from fedtiny.link.objects import Payload
from fedtiny.link.session import Identity
from fedtiny_export.errors import ConfigError, LinkUnavailable, NoAnswer

from .node import Node
from .wires import KEY, model

ROOT = Path(__file__).parents[2]
NODE = f"{sys.executable} -m tests.link.serve n1"
T = TypeVar("T")


def run(work: Awaitable[T]) -> T:
    async def limited() -> T:
        return await asyncio.wait_for(work, 60)

    return asyncio.run(limited())


def connection(link: str, **terms: Any) -> Connection:
    return Connection(open_link(link), Identity("n1", key=KEY), **terms)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in (*sys.path, str(ROOT)) if p))


async def echoes(link: str, payload: Payload) -> Connection:
    async with connection(link) as node:
        answer = await node.ask(Job(TaskKind.INFER, parameters=(1, 0.5), objects=(payload,)))
        assert (answer.objects, answer.results) == ((payload,), (1, 0.5))
        return node


def test_a_program_answers_on_its_standard_input_and_output() -> None:
    run(echoes(f"process:{NODE}", model(300_000)))


def test_a_program_that_dies_is_started_again() -> None:
    async def work() -> None:
        async with connection(f"process:{NODE}") as node:
            await node.reach()
            for process in subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "tests.link.serve"],
                                          capture_output=True, text=True, check=True).stdout.split():  # fmt: skip
                os.kill(int(process), 9)
            assert (await node.ask(Job(TaskKind.DESCRIBE))).status == 0
            assert node.traffic.sessions == 2

    run(work())


def test_a_node_answers_over_tcp_and_after_the_connection_breaks() -> None:
    async def work() -> None:
        lines: list[asyncio.StreamWriter] = []
        node = Node()
        loop = asyncio.get_running_loop()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            lines.append(writer)
            while data := await reader.read(65536):
                node.feed(data, loop.time())
                while (frame := node.outgoing(loop.time())) is not None:
                    writer.write(frame)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with connection(f"tcp:127.0.0.1:{port}") as host:
            payload = model(300_000)
            assert (await host.ask(Job(TaskKind.INFER, objects=(payload,)))).objects == (payload,)
            lines[0].transport.abort()
            assert (await host.ask(Job(TaskKind.INFER, objects=(payload,)))).objects == (payload,)
            assert len(lines) == 2
        server.close()

    run(work())


@pytest.mark.parametrize(("name", "baud", "count"), [("pty", 0, 200_000), ("serial", 921_600, 200_000)])
def test_a_node_answers_on_a_terminal(name: str, baud: int, count: int) -> None:
    async def work() -> None:
        async with paced_terminal(shlex.split(NODE), 1e6) as path:
            await echoes(f"{name}:{path}" + (f"@{baud}" if baud else ""), model(count))

    run(work())


def test_a_serial_port_is_opened_without_moving_its_lines_and_for_one_program_alone() -> None:
    master, slave = pty.openpty()
    path = os.ttyname(slave)
    try:
        port = open_link(f"serial:{path}")._open_port()  # type: ignore[attr-defined]
        assert port.dtr
        assert port.rts  # as the kernel has set them: no edge
        assert not termios.tcgetattr(port.fileno())[2] & termios.HUPCL
        with pytest.raises(LinkUnavailable, match="another program has it open"):
            open_link(f"serial:{path}")._open_port()  # type: ignore[attr-defined]
        port.close()
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "usermod -aG dialout"),
        (errno.EBUSY, "another program has it open"),
        (errno.ENOENT, "Plug the board in"),
    ],
)
def test_a_port_that_does_not_open_says_what_to_do(number: int, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise serial.SerialException(number, os.strerror(number))

    monkeypatch.setattr(serial.Serial, "open", fails)
    with pytest.raises(LinkUnavailable, match=f"/dev/ttyUSB7: .*{advice}"):
        open_link("serial:/dev/ttyUSB7")._open_port()  # type: ignore[attr-defined]


def test_a_board_is_found_by_its_usb_serial_number(monkeypatch: pytest.MonkeyPatch) -> None:
    class Port:
        serial_number, device = "A50285BI", "/dev/ttyUSB3"

    monkeypatch.setattr(serial.tools.list_ports, "comports", lambda: [Port])
    assert open_link("serial:A50285BI@9600")._path() == "/dev/ttyUSB3"  # type: ignore[attr-defined]
    with pytest.raises(LinkUnavailable, match=r"serial number 1234 .* A50285BI at /dev/ttyUSB3"):
        open_link("serial:1234")._path()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("link", "advice"),
    [
        ("tcp:127.0.0.1:1", "Is the node or emulator running"),
        ("process:/no/such/program", "cannot be started"),
        ("pty:/dev/pts/no", "there is no such port"),
        ("serial:/dev/no-such-port", "there is no such port"),
    ],
)
def test_a_link_that_is_not_there_says_what_to_do(link: str, advice: str) -> None:
    async def work() -> None:
        with pytest.raises(LinkUnavailable, match=advice):
            await connection(link).open()

    run(work())


@pytest.mark.parametrize("link", ["", "usb:1", "tcp:host", "tcp:h:x", "tcp::70000", "serial:x@fast", "mqtt:n1", "pty:"])
def test_a_name_that_is_no_link_is_refused(link: str) -> None:
    with pytest.raises(ConfigError):
        open_link(link)


def test_a_link_that_stays_down_is_named_with_its_reason() -> None:
    async def work() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with connection(f"tcp:127.0.0.1:{port}", patience_s=1.5) as host:
            server.close()
            with pytest.raises(NoAnswer, match=r"n1: no answer on tcp:.* The link is down: .*refused. Is the node"):
                await host.reach()

    run(work())


def test_questions_wait_for_each_other_and_one_that_nobody_waits_for_ends() -> None:
    async def work() -> None:
        async with connection(f"process:{NODE}") as host:
            answers = await asyncio.gather(*(host.ask(Job(TaskKind.DESCRIBE, parameters=(i,))) for i in range(5)))
            assert [answer.results for answer in answers] == [(0,), (1,), (2,), (3,), (4,)]
            impatient = asyncio.create_task(host.ask(Job(TaskKind.INFER, objects=(model(200_000),))))
            await asyncio.sleep(0)
            impatient.cancel()
            with pytest.raises(asyncio.CancelledError):
                await impatient
            assert (await host.ask(Job(TaskKind.DESCRIBE, parameters=(9,)))).results == (9,)

    run(work())


def test_nothing_stays_open_after_a_connection_is_closed() -> None:
    async def work() -> int:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            async with paced_terminal(shlex.split(NODE), 1e6) as path, connection(f"pty:{path}") as host:
                await host.reach()
            async with connection(f"process:{NODE}") as host:
                await host.reach()
        return len(os.listdir("/proc/self/fd")) - before

    assert run(work()) <= 1  # asyncio's child watcher
