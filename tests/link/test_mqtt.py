"""Nodes behind a real broker: TLS, passwords, wills, and a broker that is killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import TypeVar

import aiomqtt
import pytest

from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Job
from fedtiny.link.messages import TaskKind
from fedtiny.link.mqtt import Account, Broker
from fedtiny.link.session import Identity
from fedtiny_export.errors import LinkUnavailable, NoAnswer

from .brokers import HAVE_MOSQUITTO, Mosquitto, free_port, nodes_behind
from .node import Node
from .wires import KEY, model

pytestmark = pytest.mark.skipif(not HAVE_MOSQUITTO, reason="no mosquitto: apt-get install mosquitto")
T = TypeVar("T")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broker")


@pytest.fixture
def mosquitto(folder: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(folder)
    broker.start()
    yield broker
    broker.kill()


def run(work: Awaitable[T]) -> T:
    async def limited() -> T:
        return await asyncio.wait_for(work, 60)

    return asyncio.run(limited())


def node(name: str = "n1") -> Node:
    return Node(name, stream=False, max_payload=4096)


def connection(broker: Broker, name: str = "n1", patience_s: float = 30.0) -> Connection:
    return Connection(broker.link(name), Identity(name, key=KEY), patience_s=patience_s)


def test_a_node_behind_a_broker_answers(mosquitto: Mosquitto) -> None:
    async def work() -> None:
        async with (
            nodes_behind(mosquitto.account("n1"), [node()]),
            Broker(mosquitto.account()) as broker,
            connection(broker) as host,
        ):
            payload = model(300_000)
            assert (await host.ask(Job(TaskKind.INFER, objects=(payload,)))).objects == (payload,)
            assert broker.states["n1"] == "online"

    run(work())


def test_a_broker_that_is_killed_and_comes_back_costs_some_blocks_and_no_answer(mosquitto: Mosquitto) -> None:
    async def work() -> None:
        async with (
            nodes_behind(mosquitto.account("n1"), [node()]),
            Broker(mosquitto.account()) as broker,
            connection(broker) as host,
        ):
            await host.reach()
            payload = model(3_000_000)
            asked = asyncio.create_task(host.ask(Job(TaskKind.INFER, objects=(payload,), limit_s=60)))
            while host.traffic.down_frames["data.model"] < 200:
                await asyncio.sleep(0.001)
            mosquitto.kill()
            await asyncio.sleep(1.0)
            assert not asked.done()
            start = time.monotonic()
            mosquitto.start()
            while not broker.connected:
                await asyncio.sleep(0.01)
            assert time.monotonic() - start < 10
            assert (await asked).objects == (payload,)
            assert host.traffic.sessions >= 2

    run(work())


def test_a_node_without_its_client_is_lost_by_its_will(mosquitto: Mosquitto) -> None:
    async def work() -> None:
        states: list[tuple[str, str]] = []
        async with Broker(mosquitto.account(), on_state=lambda *state: states.append(state)) as broker:
            task = asyncio.create_task(_stay(mosquitto))
            while ("n1", "online") not in states:
                await asyncio.sleep(0.01)
            task.cancel()
            while ("n1", "lost") not in states:
                await asyncio.sleep(0.01)
            async with connection(broker, patience_s=0.5) as host:
                with pytest.raises(NoAnswer, match="n1: no answer on mqtt:n1"):
                    await host.reach()

    run(work())


async def _stay(mosquitto: Mosquitto) -> None:
    """A client whose connection breaks without a goodbye."""
    import ssl

    account = mosquitto.account("n1")
    will = aiomqtt.Will("fl/v1/lab/n1/state", b"lost", 1, True)
    client = aiomqtt.Client(
        account.host, account.port, username="n1", password=account.password, will=will,
        tls_context=ssl.create_default_context(cafile=account.ca_file),
    )  # fmt: skip
    await client.__aenter__()
    await client.publish("fl/v1/lab/n1/state", b"online", 1, True)
    try:
        await asyncio.sleep(60)
    finally:
        client._client.socket().close()  # type: ignore[union-attr]


def test_the_host_tells_its_state_and_round_to_who_looks(mosquitto: Mosquitto) -> None:
    async def work() -> list[tuple[str, bytes]]:
        import ssl

        account = mosquitto.account()
        seen: list[tuple[str, bytes]] = []
        async with aiomqtt.Client(
            account.host, account.port, username="host", password=account.password,
            tls_context=ssl.create_default_context(cafile=account.ca_file),
        ) as client:  # fmt: skip
            await client.subscribe("fl/v1/lab/_host/#", 1)
            async with Broker(mosquitto.account()) as broker:
                await broker.publish_round(7)
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                seen.append((message.topic.value.rsplit("/", 1)[1], message.payload))
                if message.payload == b"offline":
                    break
        return seen

    assert run(work()) == [("state", b"online"), ("round", b"7"), ("state", b"offline")]


@pytest.mark.parametrize(
    ("what", "advice"),
    [
        ("password", "refused the user host or its password"),
        ("authority", "certificate is not to be trusted .* Set ca_file"),
        ("no file", "cannot be used as the broker's certificate authority"),
        ("port", "cannot be reached .* Is it running"),
        ("plain", "If this is its port for TLS, set tls"),
    ],
)
def test_a_broker_that_refuses_says_what_to_do(what: str, advice: str, mosquitto: Mosquitto) -> None:
    account = {
        "password": mosquitto.account(password="wrong"),
        "authority": mosquitto.account(authority="stranger"),
        "no file": mosquitto.account(authority="none"),
        "port": Account("localhost", free_port(), tls=False),
        "plain": Account("localhost", mosquitto.port, tls=False),
    }[what]

    async def work() -> None:
        with pytest.raises(LinkUnavailable, match=advice):
            await Broker(account).open()

    run(work())


def test_a_broker_lets_no_node_speak_for_another(mosquitto: Mosquitto) -> None:
    """n2 logs in as itself and serves n1's topics: nothing of it arrives."""

    async def work() -> None:
        async with (
            nodes_behind(mosquitto.account("n2"), [node("n1")]),
            Broker(mosquitto.account()) as broker,
            connection(broker, patience_s=1.0) as host,
        ):
            with pytest.raises(NoAnswer):
                await host.reach()
            assert "n1" not in broker.states or broker.states["n1"] != "online"

    run(work())
