"""Endpoints with nodes on a virtual clock."""

from __future__ import annotations

import random
from typing import Any

from fedtiny.link.endpoint import Answer, Carrier, Endpoint, Job
from fedtiny.link.memory import Faults, MemoryWire
from fedtiny.link.messages import ObjectKind, Profile, TaskKind
from fedtiny.link.objects import Payload
from fedtiny.link.session import Identity

from .c_node import CNode
from .node import Node

AnyNode = Node | CNode
KEY = bytes(range(32))


KIND: list[type[AnyNode]] = [Node]  # of the nodes that tests make; the fixture `each_node` changes it


def make_node(**terms: Any) -> AnyNode:
    return KIND[0](**terms)


def endpoint(*, profile: Profile = Profile.PSK, key: bytes | None = KEY, boot: int = 0, seed: int = 1,
             bytes_per_s: float | None = None, patience_s: float = 30.0) -> Endpoint:  # fmt: skip
    return Endpoint(
        Identity("n1", profile, None if profile is Profile.PLAIN else key, boot),
        Carrier("memory", bytes_per_s=bytes_per_s),
        random=random.Random(seed).randbytes,
        patience_s=patience_s,
    )


def wire(node: AnyNode | None = None, faults: Faults | None = None, *, seed: int = 0, **terms: object) -> MemoryWire:
    """A line, up and ready for a question."""
    faults = faults or Faults()
    host = endpoint(seed=seed, bytes_per_s=faults.bytes_per_s, **terms)  # type: ignore[arg-type]
    line = MemoryWire(host, node or make_node(window=host.carrier.window), faults, seed)
    host.link_up(line.now)
    return line


def ask(line: MemoryWire, job: Job | None = None, limit_s: float = 4000.0) -> Answer:
    """Raises what the endpoint says went wrong."""
    host = line.host
    assert isinstance(host, Endpoint)
    ticket = host.ask(job or Job(TaskKind.DESCRIBE), line.now)
    assert line.run(lambda: ticket.done, limit_s), "neither answer nor error"
    if ticket.error is not None:
        raise ticket.error
    assert ticket.answer is not None
    return ticket.answer


def model(count: int = 256 * 1024, seed: int = 5) -> Payload:
    return Payload(ObjectKind.MODEL, random.Random(seed).randbytes(count))
