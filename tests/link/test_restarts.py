"""A node that loses power anywhere in a round: it is told everything again, and one update counts."""

from __future__ import annotations

import pytest

from fedtiny.link.endpoint import Answer, Endpoint, Job, Ticket
from fedtiny.link.memory import Faults, MemoryWire
from fedtiny.link.messages import ObjectKind, TaskKind
from fedtiny.link.objects import Payload
from fedtiny_export.errors import NodeRestarted

from ..conftest import Outcome
from .wires import endpoint, make_node, model

POINTS, SEEDS = 20, 5
ROUND = (
    Job(TaskKind.LOAD, round=3, objects=(model(30_000),)),
    Job(TaskKind.INSTALL, round=3, objects=(Payload(ObjectKind.VALUES, bytes(range(200)) * 60),)),
    Job(TaskKind.TRAIN, round=3),
)


class Trainer:
    """Work whose update says what was loaded and installed: a node that lost it has none."""

    def __init__(self) -> None:
        self._held: dict[TaskKind, Payload] = {}
        self.trained = 0

    def __call__(self, task, objects):  # type: ignore[no-untyped-def]
        if task.kind is not TaskKind.TRAIN:
            self._held[task.kind] = objects[0]
            return 0, (), ()
        if len(self._held) < 2:
            return 5, (), ()
        self.trained += 1
        update = Payload(ObjectKind.VALUES, b"".join(payload.data[::-1] for payload in self._held.values()))
        return 0, (1,), (update,)


def a_round(line: MemoryWire, cut_at: float | None, boot: int) -> tuple[list[Answer], float]:
    """Answers to TRAIN that counted, and how many frames passed; at frame `cut_at` the node boots anew."""
    host = line.host
    assert isinstance(host, Endpoint)
    counted: list[Answer] = []
    todo, ticket = list(ROUND), None
    start = frames(host)
    while todo or ticket:
        if ticket is None:
            ticket = host.ask(todo[0], line.now)
        assert line.run(lambda t=ticket, cut=cut_at: t.done or due(host, start, cut), 300)  # type: ignore[misc]
        if due(host, start, cut_at):
            line.node, cut_at = make_node(work=Trainer(), boot=boot), None
            line.cut()
        if ticket.done:
            todo, ticket = after(ticket, todo, counted), None
    return counted, frames(host) - start


def after(ticket: Ticket, todo: list[Job], counted: list[Answer]) -> list[Job]:
    if isinstance(ticket.error, NodeRestarted):
        return list(ROUND)
    assert ticket.answer is not None, ticket.error
    assert ticket.answer.status == 0
    if ticket.job.kind is TaskKind.TRAIN:
        counted.append(ticket.answer)
    return todo[1:]


def frames(host: Endpoint) -> int:
    return host.traffic.down_frames.total() + host.traffic.up_frames.total()


def due(host: Endpoint, start: int, cut_at: float | None) -> bool:
    return cut_at is not None and frames(host) - start >= cut_at


@pytest.mark.usefixtures("each_node")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_node_killed_at_any_point_of_a_round_gives_one_update(seed: int, outcome: Outcome) -> None:
    def line() -> MemoryWire:
        host = endpoint(seed=seed, patience_s=100.0)
        made = MemoryWire(host, make_node(work=Trainer(), boot=1), Faults(loss=0.02, bytes_per_s=50_000.0), seed)
        host.link_up(0.0)
        assert made.run(lambda: host.connected, 20)
        return made

    undisturbed, length = a_round(line(), None, 1)
    for point in range(POINTS):
        counted, _ = a_round(line(), (point + 0.5) / POINTS * length, 2)
        assert counted == undisturbed, f"killed at {point + 0.5} / {POINTS} of the round"
    outcome("node killed in a round", end="both", tried=POINTS, what="points, 5 seeds", result="one update, same bytes")
