"""Asking one node: repeated, resumed, and given up with a reason."""

from __future__ import annotations

import pytest

from fedtiny.link.endpoint import Answer, Endpoint, Job
from fedtiny.link.frames import FrameType, seal_open, stuff
from fedtiny.link.memory import Faults, MemoryWire
from fedtiny.link.messages import Ack, Announce, ObjectKind, ObjectRef, Reply, Task, TaskKind, decode, encode
from fedtiny.link.objects import Payload
from fedtiny_export.errors import LinkError, NoAnswer, NodeRestarted, ObjectDamaged

from .node import Node
from .wires import ask, endpoint, make_node, model, wire


def host_of(line: MemoryWire) -> Endpoint:
    assert isinstance(line.host, Endpoint)
    return line.host


@pytest.mark.usefixtures("each_node")
def test_a_reply_brings_results_and_objects() -> None:
    values = Payload(ObjectKind.VALUES, b"v" * 3000)
    moments = Payload(ObjectKind.MOMENTS, b"m" * 10)
    node = make_node(work=lambda task, objects: (3, (1, 2.5), (values, moments)))
    answer = ask(wire(node), Job(TaskKind.TRAIN, bytes(range(8)), 4, 1, (1, 0.5)))
    assert answer == Answer(3, (1, 2.5), (values, moments), "")


@pytest.mark.usefixtures("each_node")
def test_each_task_is_done_once_however_often_it_is_told() -> None:
    node = make_node()
    line = wire(node, Faults(loss=0.4, duplicate=0.2), seed=3, patience_s=100.0)
    for _ in range(20):
        ask(line)
    assert len(node.done) == len(set(node.done)) == 20


def test_a_reply_to_another_round_is_dropped_and_counted() -> None:
    node = Node()
    line = wire(node)
    genuine = node._send

    def other_round(kind: FrameType, payload: bytes) -> None:
        if kind is FrameType.REPLY:
            reply = decode(Reply, payload)
            genuine(kind, encode(Reply(reply.number, reply.run, reply.round + 1, reply.attempt, 0)))
        genuine(kind, payload)

    node._send = other_round  # type: ignore[method-assign]
    assert ask(line, Job(TaskKind.TRAIN, round=3)).status == 0
    assert host_of(line).traffic.dropped["binding"] == 1


def test_a_late_reply_is_acknowledged_and_dropped() -> None:
    node = Node()
    line = wire(node)
    ask(line)
    host = host_of(line)
    acks = host.traffic.down_frames["ack"]
    node._send(FrameType.REPLY, encode(node._reply))  # type: ignore[arg-type]
    assert line.run(lambda: host.traffic.down_frames["ack"] > acks, 5)
    assert host.traffic.repeated_messages == 1


def test_a_node_that_restarts_at_work_is_said_to_have() -> None:
    node = Node(boot=1)
    line = wire(node)
    ask(line)
    host = host_of(line)
    node._work = lambda: None  # type: ignore[method-assign] # it takes the task and dies
    ticket = host.ask(Job(TaskKind.TRAIN), line.now)
    assert line.run(lambda: node._task is not None and node._task.kind is TaskKind.TRAIN, 5)
    line.node = Node(boot=2)
    assert line.run(lambda: ticket.done, 30)
    assert isinstance(ticket.error, NodeRestarted)
    assert ask(line).status == 0


@pytest.mark.usefixtures("each_node")
def test_a_restart_between_two_questions_is_told_once() -> None:
    line = wire(make_node(boot=1))
    ask(line)
    line.node = make_node(boot=2)
    host = host_of(line)
    assert line.run(lambda: host.hello is not None and host.hello.boot_counter == 2, 10)
    with pytest.raises(NodeRestarted, match="n1: it was restarted"):
        ask(line)
    assert ask(line).status == 0


@pytest.mark.usefixtures("each_node")
def test_a_forged_announcement_of_a_restart_costs_a_handshake_and_nothing_else() -> None:
    node = make_node()
    line = wire(node)
    ask(line)

    forged = seal_open(FrameType.ANNOUNCE, encode(Announce("n1", "test", 99)), from_host=False)
    host_of(line).feed(b"\0" + stuff(forged), line.now)
    assert ask(line).status == 0


def test_a_task_that_takes_longer_than_its_limit_is_given_up() -> None:
    node = Node()
    line = wire(node)
    ask(line)
    node._work = lambda: node._send(FrameType.ACK, encode(_ack(node)))  # type: ignore[method-assign]
    start = line.now
    with pytest.raises(NoAnswer, match="did not finish its task within 100 s"):
        ask(line, Job(TaskKind.TRAIN, limit_s=100.0))
    assert 100 <= line.now - start < 110


def _ack(node: Node) -> Ack:

    assert node._task is not None
    return Ack(node._task.number)


def test_a_node_that_works_longer_than_our_patience_is_waited_for() -> None:
    node = Node()
    line = wire(node, patience_s=10.0)
    work, started = node._work, []

    def slow() -> None:
        if not started:
            started.append(line.now)
            node._send(FrameType.ACK, encode(_ack(node)))
        if line.now - started[0] > 60:
            work()

    node._work = slow  # type: ignore[method-assign]
    assert ask(line, Job(TaskKind.TRAIN, limit_s=100.0)).status == 0


def test_bytes_that_are_no_object_are_fetched_again_once_and_then_named() -> None:
    def damaged(task: Task, objects: tuple[Payload, ...]) -> tuple[int, tuple[int, ...], tuple[Payload, ...]]:
        payload = Payload(ObjectKind.VALUES, b"x" * 5000)
        _ = payload.ref  # the hash is taken, then a byte changes
        object.__setattr__(payload, "data", b"x" * 4999 + b"y")
        return 0, (), (payload,)

    line = wire(Node(work=damaged))
    with pytest.raises(ObjectDamaged, match=r"n1: its object values .5000 bytes. came twice"):
        ask(line)
    assert host_of(line).traffic.up_frames["data.values"] == 10


def test_a_reply_of_gigabytes_is_refused_before_it_takes_memory() -> None:
    node = Node()
    line = wire(node)
    genuine = node._send

    def huge(kind: FrameType, payload: bytes) -> None:
        if kind is FrameType.REPLY:
            r = decode(Reply, payload)
            ref = ObjectRef(ObjectKind.VALUES, bytes(16), 0xFFFFFFFF)
            payload = encode(Reply(r.number, r.run, r.round, r.attempt, 0, None, (ref,)))
        genuine(kind, payload)

    node._send = huge  # type: ignore[method-assign]
    with pytest.raises(LinkError, match="4294967295 bytes, more than"):
        ask(line)


def test_noise_and_log_lines_reach_the_log() -> None:
    lines: list[str] = []
    host = endpoint()
    host._on_log = lines.append
    node = Node()
    line = MemoryWire(host, node, Faults())
    host.link_up(0.0)
    host.feed(b"ets Jul 29 2019 12:21:46\r\nrst:0x1 (POWERON_RESET)\r\n\0", 0.0)
    assert line.run(lambda: host.connected and node.session is not None, 10)
    node._send(FrameType.LOG, "température 31 °C".encode())
    assert line.run(lambda: len(lines) == 2, 5)
    assert lines == ["ets Jul 29 2019 12:21:46\r\nrst:0x1 (POWERON_RESET)", "température 31 °C"]


@pytest.mark.usefixtures("each_node")
def test_a_session_without_counters_left_is_replaced() -> None:
    line = wire()
    ask(line)
    host = host_of(line)
    assert host._session is not None
    host._session._counter = (1 << 32) - 3
    for _ in range(5):
        ask(line, Job(TaskKind.INFER, objects=(model(5000),)))
    assert host.traffic.sessions == 2


@pytest.mark.usefixtures("each_node")
def test_a_host_that_starts_anew_is_served_whatever_its_numbers() -> None:
    node = make_node()
    for seed in range(4):
        line = MemoryWire(endpoint(seed=seed), node, Faults())
        host_of(line).link_up(0.0)
        assert ask(line).status == 0
    assert len(node.done) == 4
