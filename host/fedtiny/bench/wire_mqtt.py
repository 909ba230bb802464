"""One round with very many nodes behind a broker: the firmware's wire a thousand times in one process (swarm.c)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedtiny.link.connection import Connection
from fedtiny.link.endpoint import Job
from fedtiny.link.messages import ObjectKind, TaskKind
from fedtiny.link.mqtt import Account, Broker
from fedtiny.link.objects import Payload
from fedtiny.link.session import Identity
from fedtiny_export.errors import ConfigError, FleetError

FLEET = "bench"
START_S = 20.0
ROUNDS = 3


@dataclass(frozen=True)
class Round:
    """The fastest of `ROUNDS`. `round_s`: from the first task to the last update; `host_s`: the host's processor time.

    `nodes_s`: processor time of all nodes and the broker, from their start to their end.
    """

    handshakes_s: float
    round_s: float
    host_s: float
    frames: int
    sent_again: int
    nodes_s: float = 0.0


def mqtt_round(swarm: Sequence[str], nodes: int, object_bytes: int, folder: Path) -> Round:
    """Every node gets a model of so many bytes and sends as many back, over a mosquitto of its own.

    `swarm`: the program. Raises ConfigError without mosquitto.
    """
    key = os.urandom(32)
    before = _children_s()
    with _many_files(), _mosquitto(folder) as port:
        command = [*swarm, str(port), FLEET, str(nodes), str(object_bytes), key.hex()]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                if process.stdout.readline() != "ready\n":
                    raise FleetError("the nodes of the benchmark did not reach the broker")
                found = asyncio.run(_rounds(port, key, nodes, object_bytes))
            finally:
                process.stdin.close()
                process.wait(START_S)
    return replace(found, nodes_s=_children_s() - before)


def _children_s() -> float:
    """Processor time of the processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _rounds(port: int, key: bytes, nodes: int, object_bytes: int) -> Round:
    async with Broker(Account("127.0.0.1", port, FLEET, tls=False)) as broker:
        names = [f"b{number:04}" for number in range(nodes)]
        hosts = [Connection(broker.link(name), Identity(name, key=key)) for name in names]
        start = time.perf_counter()
        for host in hosts:
            await host.open()
        await asyncio.gather(*(host.reach() for host in hosts))
        handshakes_s = time.perf_counter() - start
        rounds = [await _round(hosts, object_bytes) for _ in range(ROUNDS)]
        for host in hosts:
            await host.close()
    return replace(min(rounds, key=lambda found: found.round_s), handshakes_s=handshakes_s)


async def _round(hosts: Sequence[Connection], object_bytes: int) -> Round:
    model = Payload(ObjectKind.MODEL, os.urandom(object_bytes))
    job = Job(TaskKind.LOAD, objects=(model,), limit_s=120.0)
    frames, again = _frames(hosts), _sent_again(hosts)
    start, busy = time.perf_counter(), time.process_time()
    answers = await asyncio.gather(*(host.ask(job) for host in hosts))
    end, busy = time.perf_counter(), time.process_time() - busy
    if any(answer.objects != (model,) for answer in answers):
        raise FleetError("an update came back with other bytes")
    return Round(
        handshakes_s=0.0,
        round_s=end - start,
        host_s=busy,
        frames=_frames(hosts) - frames,
        sent_again=_sent_again(hosts) - again,
    )


def _frames(hosts: Sequence[Connection]) -> int:
    return sum(host.traffic.down_frames.total() + host.traffic.up_frames.total() for host in hosts)


def _sent_again(hosts: Sequence[Connection]) -> int:
    return sum(host.traffic.resent_blocks + host.traffic.asked_again for host in hosts)


def mosquitto() -> str | None:
    """The broker's program; Debian keeps it where not every user looks."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def _mosquitto(folder: Path) -> Iterator[int]:
    """The port of a broker that asks nobody who he is, on this computer alone."""
    program = mosquitto()
    if program is None:
        raise ConfigError("this row needs a broker. Install with: sudo apt-get install -y mosquitto")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = int(s.getsockname()[1])
    settings = folder / "mosquitto.conf"
    settings.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\nset_tcp_nodelay true\n"
    )
    broker = subprocess.Popen([program, "-c", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if time.monotonic() > end or broker.poll() is not None:
                raise FleetError("mosquitto did not start")
            time.sleep(0.02)
        yield port
    finally:
        broker.kill()
        broker.wait()


@contextlib.contextmanager
def _many_files() -> Iterator[None]:
    """Programs started inside may open as many connections as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
