"""The node in C behind a real broker, through libmosquitto: TLS, passwords, an ACL; ten of them; a broker that dies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Job
from fedtiny.link.messages import Announce, TaskKind, decode
from fedtiny.link.mqtt import Broker
from fedtiny.link.session import Identity
from fedtiny_export.errors import NoAnswer, NodeRefused, NodeRestarted

from .brokers import HAVE_MOSQUITTO, NODE, Mosquitto, need_node
from .lesson import KEY, Lesson, assert_same_bits, boots, run, taught, write_record

NAMES = tuple(f"n{number}" for number in range(1, 11))
LESSON = Lesson()

pytestmark = pytest.mark.skipif(not HAVE_MOSQUITTO, reason="no mosquitto: apt-get install mosquitto")


@pytest.fixture(scope="module", autouse=True)
def program() -> None:
    need_node()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broker")


@pytest.fixture
def mosquitto(folder: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(folder, {"host": "h0st", **dict.fromkeys(NAMES, "n0de")})
    broker.start()
    yield broker
    broker.kill()


class Nodes:
    """Programs behind the broker, each with its record in the folder."""

    def __init__(self, mosquitto: Mosquitto, folder: Path) -> None:
        self._mosquitto, self._folder = mosquitto, folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *, key: bytes = KEY, password: str = "n0de", authority: str = "authority") -> None:
        record, secret = self._folder / f"{name}.record", self._folder / f"{name}.password"
        if not record.exists():
            write_record(record, name, key)
        secret.write_text(password + "\n")
        command = self._mosquitto.node_command(record, secret, authority)
        self.running[name] = subprocess.Popen(command, stderr=(self._folder / f"{name}.said").open("ab"))

    def said(self, name: str) -> str:
        return (self._folder / f"{name}.said").read_text()

    def boots(self, name: str) -> int:
        return boots(self._folder / f"{name}.record")

    def end(self, name: str, how: signal.Signals = signal.SIGKILL) -> int:
        process = self.running.pop(name)
        process.send_signal(how)
        return process.wait(10)


@pytest.fixture
def nodes(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(mosquitto, tmp_path)
    yield made
    for name in list(made.running):
        made.end(name)


def connection(broker: Broker, name: str = "n1", key: bytes = KEY, patience_s: float = 30.0) -> Connection:
    return Connection(broker.link(name), Identity(name, key=key), patience_s=patience_s)


async def until(what: str, limit_s: float, true: Callable[[], object]) -> None:
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < limit_s, f"not {what} in {limit_s} s"
        await asyncio.sleep(0.01)


def test_ten_nodes_learn_behind_one_broker_with_the_cores_bits(mosquitto: Mosquitto, nodes: Nodes) -> None:
    async def work() -> None:
        for name in NAMES:
            nodes.start(name)
        async with Broker(mosquitto.account()) as broker, contextlib.AsyncExitStack() as stack:
            hosts = [await stack.enter_async_context(connection(broker, name)) for name in NAMES]
            for found in await asyncio.gather(*(taught(host, LESSON) for host in hosts)):
                assert_same_bits(found, LESSON)
            assert {broker.states[name] for name in NAMES} == {"online"}
            for name in NAMES:
                assert decode(Announce, broker.caps[name]) == Announce(name, "posix", 1)

    run(work())


def test_a_node_is_back_ten_seconds_after_its_broker_was_killed_and_learns_the_same(
    mosquitto: Mosquitto, nodes: Nodes
) -> None:
    async def work() -> None:
        nodes.start("n1")
        async with Broker(mosquitto.account()) as broker, connection(broker) as host:
            asked = asyncio.create_task(taught(host, LESSON))
            while host.traffic.down_frames["data.samples"] < 5:
                await asyncio.sleep(0.001)
            mosquitto.kill()
            await asyncio.sleep(0.5)
            assert not asked.done()
            mosquitto.start()
            start = time.monotonic()
            await until("connected again", 10, lambda: broker.connected and broker.states.get("n1") == "online")
            await until("a session", 10, lambda: host.traffic.sessions >= 2)
            assert time.monotonic() - start < 10
            assert_same_bits(await asked, LESSON)
            assert nodes.boots("n1") == 1

    run(work())


def test_a_killed_node_is_lost_by_its_will_and_comes_back_with_a_higher_boot_counter(
    mosquitto: Mosquitto, nodes: Nodes
) -> None:
    async def work() -> None:
        seen: list[tuple[str, str]] = []
        nodes.start("n1")
        async with (
            Broker(mosquitto.account(), on_state=lambda *state: seen.append(state)) as broker,
            connection(broker) as host,
        ):
            await host.reach()
            nodes.end("n1")
            await until("lost", 10, lambda: ("n1", "lost") in seen)
            nodes.start("n1")
            await until("a session of the new program", 10, lambda: host.hello and host.hello.boot_counter == 2)
            with pytest.raises(NodeRestarted, match="n1"):
                await host.ask(Job(TaskKind.DESCRIBE))
            assert_same_bits(await taught(host, LESSON), LESSON)

    run(work())


def test_a_node_that_is_told_to_stop_says_goodbye(mosquitto: Mosquitto, nodes: Nodes) -> None:
    async def work() -> None:
        seen: list[tuple[str, str]] = []
        nodes.start("n1")
        async with Broker(mosquitto.account(), on_state=lambda *state: seen.append(state)):
            await until("online", 10, lambda: ("n1", "online") in seen)
            assert await asyncio.to_thread(nodes.end, "n1", signal.SIGTERM) == 0
            await until("offline", 5, lambda: ("n1", "offline") in seen)
            await asyncio.sleep(0.3)
            assert ("n1", "lost") not in seen

    run(work())


def test_a_node_with_another_key_is_refused_by_name(mosquitto: Mosquitto, nodes: Nodes) -> None:
    async def work() -> None:
        nodes.start("n1", key=bytes(32))
        async with Broker(mosquitto.account()) as broker, connection(broker, patience_s=15) as host:
            with pytest.raises(NodeRefused, match=r"n1: .* fedtiny fleet enrol it anew"):
                await host.reach()

    run(work())


@pytest.mark.parametrize(
    ("terms", "told"),
    [({"password": "wrong"}, "refuses the login"), ({"authority": "stranger"}, "no connection to the broker")],
)
def test_a_login_or_certificate_that_is_not_good_is_said_and_nothing_is_trusted(
    terms: dict[str, str], told: str, mosquitto: Mosquitto, nodes: Nodes
) -> None:
    async def work() -> None:
        nodes.start("n1", **terms)  # type: ignore[arg-type]
        await until(told, 10, lambda: told in nodes.said("n1"))
        async with Broker(mosquitto.account()) as broker, connection(broker, patience_s=1.0) as host:
            with pytest.raises(NoAnswer):
                await host.reach()

    run(work())


def test_a_node_without_a_record_says_how_to_make_one(tmp_path: Path) -> None:
    command = [NODE, "--record", tmp_path / "none", "--host", "localhost"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    assert (done.returncode, "fedtiny fleet enrol --offline" in done.stderr) == (2, True)
    assert not (tmp_path / "none").exists()
