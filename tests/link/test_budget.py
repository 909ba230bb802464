"""Many nodes behind one carrier: no more is asked of all of them than it carries, and all are served."""

from __future__ import annotations

import random

from fedtiny.link.endpoint import Carrier, Endpoint, Job
from fedtiny.link.frames import FrameType
from fedtiny.link.memory import Faults, MemoryWire
from fedtiny.link.messages import ObjectKind, TaskKind
from fedtiny.link.objects import Budget, Payload
from fedtiny.link.session import Identity

from .node import Node
from .wires import KEY

REPLY = Payload(ObjectKind.VALUES, bytes(48 * 1016))


def line_with(
    budget: Budget, node: Node | None = None, patience_s: float = 30.0, rate: float | None = None
) -> tuple[MemoryWire, Endpoint]:
    host = Endpoint(
        Identity("n1", key=KEY),
        Carrier("shared", budget=budget),
        random=random.Random(1).randbytes,
        patience_s=patience_s,
    )
    line = MemoryWire(host, node or Node(work=lambda task, objects: (0, (), (REPLY,))), Faults(bytes_per_s=rate))
    host.link_up(0.0)
    return line, host


def test_twenty_nodes_are_served_and_never_asked_for_more_than_the_budget() -> None:
    budget, most = Budget(100 * 1016), 0
    lines = [line_with(budget) for _ in range(20)]
    tickets = [host.ask(Job(TaskKind.TRAIN), 0.0) for _, host in lines]
    while not all(ticket.done for ticket in tickets):
        for line, _ in lines:
            line.run(lambda: False, 0.002)
        in_flight = [
            host._asking.inbox.current.in_flight for _, host in lines if host._asking.inbox.current is not None
        ]
        most = max(most, sum(in_flight))
        assert lines[0][0].now < 10, "not all of them were served"
    assert 48 < most <= 100
    assert all(ticket.answer is not None and ticket.answer.objects == (REPLY,) for ticket in tickets)
    assert sum(host.traffic.asked_again for _, host in lines) == 0


def test_waiting_in_line_is_no_silence_of_the_node() -> None:
    budget = Budget(1000, patience_s=1e9)
    assert budget.take("another", 1000, 0.0, lambda: None)
    line, host = line_with(budget, patience_s=5.0)
    ticket = host.ask(Job(TaskKind.TRAIN), 0.0)
    assert not line.run(lambda: ticket.done, 100)
    assert ticket.error is None
    budget.give_back("another")
    assert line.run(lambda: ticket.done, 5)
    assert ticket.answer is not None


def test_a_node_that_falls_silent_gives_its_place_away() -> None:
    class Mute(Node):
        def _send(self, kind: FrameType, payload: bytes) -> None:
            if kind is not FrameType.DATA:
                super()._send(kind, payload)

    budget = Budget(REPLY.ref.length)
    silent, host = line_with(budget, Mute(work=lambda task, objects: (0, (), (REPLY,))), patience_s=1000.0)
    mute = host.ask(Job(TaskKind.TRAIN), 0.0)
    assert silent.run(lambda: host.traffic.down_frames["request"] > 0, 5)
    line, other = line_with(budget)
    ticket = other.ask(Job(TaskKind.TRAIN), 0.0)
    while not ticket.done:
        assert line.now < 5, "the silent node keeps its place"
        for each in (silent, line):
            each.run(lambda: False, 0.01)
    assert not mute.done


def test_who_waits_is_served_in_the_order_of_the_line() -> None:
    budget, woken = Budget(10), list[str]()

    def take(who: str, count: int, now: float = 0.0) -> bool:
        return budget.take(who, count, now, lambda: woken.append(who))

    assert take("a", 20)  # more than all, but alone
    assert [take("b", 6), take("c", 6), take("d", 1)] == [False, False, False]
    budget.give_back("c")  # it leaves the line
    budget.give_back("a")
    assert woken == ["b", "d"]
    assert take("b", 6)


def test_who_is_slow_lets_others_pass_after_a_while() -> None:
    """The first in line is told when to ask again, and who becomes the first is woken for that."""
    budget, woken = Budget(10, patience_s=0.25), list[str]()
    assert budget.take("a", 10, 1.0, lambda: woken.append("a"))
    for who in ("b", "c"):
        assert not budget.take(who, 10, 1.1, lambda who=who: woken.append(who))  # type: ignore[misc]
    assert (budget.deadline("b"), budget.deadline("c")) == (1.25, None)
    assert budget.take("b", 10, 1.25, lambda: woken.append("b"))
    assert woken == ["c"]
    assert budget.deadline("c") == 1.5


def test_slow_nodes_on_one_carrier_do_not_wait_for_each_other() -> None:
    """Twenty nodes behind slow lines, 5 s each: all in little more than that, and not one after the other."""
    budget = Budget(2 * REPLY.ref.length)
    lines = [line_with(budget, rate=10_000.0) for _ in range(20)]
    tickets = [host.ask(Job(TaskKind.TRAIN), 0.0) for _, host in lines]
    while not all(ticket.done for ticket in tickets):
        for line, _ in lines:
            line.run(lambda: False, 0.05)
        assert lines[0][0].now < 12, "they wait for each other"
