"""Six troubles of a broker in the middle of a task: the answer is the same, and the host is back within 10 s."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import aiomqtt
import pytest

from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Job
from fedtiny.link.messages import TaskKind
from fedtiny.link.mqtt import Broker
from fedtiny.link.session import Identity

from ..conftest import Outcome
from .brokers import HAVE_MOSQUITTO, Mosquitto, nodes_behind
from .node import Node
from .wires import KEY, model

pytestmark = pytest.mark.skipif(not HAVE_MOSQUITTO, reason="no mosquitto: apt-get install mosquitto")
CLIENT = "the-host"
OUTAGE_S = 30.0
Trouble = Callable[[Mosquitto, Connection], Awaitable[None]]


async def blocks(host: Connection, way: str, count: int) -> None:
    frames = host.traffic.down_frames if way == "down" else host.traffic.up_frames
    while frames["data.model"] < count:
        await asyncio.sleep(0.001)


async def restarted_before_the_first_block(broker: Mosquitto, host: Connection) -> None:
    broker.stop()
    broker.start()


async def restarted_on_the_way_down(broker: Mosquitto, host: Connection) -> None:
    await blocks(host, "down", 200)
    broker.stop()
    broker.start()


async def killed_on_the_way_down(broker: Mosquitto, host: Connection) -> None:
    await blocks(host, "down", 200)
    broker.kill()
    broker.start()


async def killed_on_the_way_up(broker: Mosquitto, host: Connection) -> None:
    await blocks(host, "up", 200)
    broker.kill()
    broker.start()


async def gone_for_half_a_minute(broker: Mosquitto, host: Connection) -> None:
    await blocks(host, "down", 200)
    broker.kill()
    await asyncio.sleep(OUTAGE_S)
    broker.start()


async def another_client_takes_the_hosts_id(broker: Mosquitto, host: Connection) -> None:
    await blocks(host, "down", 200)
    account = broker.account()
    async with aiomqtt.Client(
        account.host, account.port, username="host", password=account.password, identifier=CLIENT,
        protocol=aiomqtt.ProtocolVersion.V5, tls_context=ssl.create_default_context(cafile=account.ca_file),
    ):  # fmt: skip
        await asyncio.sleep(0.2)


TROUBLES: list[Trouble] = [
    restarted_before_the_first_block,
    restarted_on_the_way_down,
    killed_on_the_way_down,
    killed_on_the_way_up,
    gone_for_half_a_minute,
    another_client_takes_the_hosts_id,
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__)
def test_a_broker_in_trouble_costs_some_blocks_and_no_answer(
    trouble: Trouble, tmp_path: Path, outcome: Outcome
) -> None:
    mosquitto = Mosquitto(tmp_path / "broker")
    mosquitto.start()

    async def work() -> float:
        node = Node("n1", stream=False, max_payload=4096)
        async with (
            nodes_behind(mosquitto.account("n1"), [node]),
            Broker(replace(mosquitto.account(), client_id=CLIENT)) as broker,
            Connection(broker.link("n1"), Identity("n1", key=KEY), patience_s=2 * OUTAGE_S) as host,
        ):
            await host.reach()
            payload = model(3_000_000)
            asked = asyncio.create_task(host.ask(Job(TaskKind.INFER, objects=(payload,), limit_s=100)))
            await trouble(mosquitto, host)
            start = time.monotonic()
            await asyncio.sleep(0.05)
            while not broker.connected or host.traffic.sessions < 2:
                await asyncio.sleep(0.01)
            back_s = time.monotonic() - start
            assert (await asked).objects == (payload,)
            assert len(node.done) == 1
            return back_s

    try:
        back_s = asyncio.run(asyncio.wait_for(work(), 90))
    finally:
        mosquitto.kill()
    assert back_s < 10
    outcome(
        "broker restarted, killed, gone, robbed of its client",
        end="host", tried=1, what="troubles", result="back within 10 s, same answer",
    )  # fmt: skip
