"""The node in C: what it sends on its own, what it refuses, what it keeps, and what no host can make it do."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtiny.link.endpoint import Endpoint, Job
from fedtiny.link.frames import FrameType, Splitter, seal_open, stuff, unseal
from fedtiny.link.memory import Faults, MemoryWire
from fedtiny.link.messages import (
    MESSAGES,
    Announce,
    Hello,
    Invite,
    Message,
    ObjectKind,
    Profile,
    Reason,
    Refuse,
    Request,
    Task,
    TaskKind,
    decode,
    decode_first,
    encode,
)
from fedtiny.link.objects import Payload
from fedtiny.link.session import Handshake, Identity
from fedtiny_export.errors import NodeRefused, NodeRestarted

from .c_node import CNode
from .wires import KEY, ask, endpoint, model, wire

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors/wire.json").read_text())
ERR_DATA = 8


def host_of(line: MemoryWire) -> Endpoint:
    assert isinstance(line.host, Endpoint)
    return line.host


def said(node: CNode, now: float = 0.0) -> list[bytes]:
    """The frames that the node sends now."""
    stream = b""
    while (data := node.outgoing(now)) is not None:
        stream += data
    return [piece.frame for piece in Splitter().feed(stream)]  # type: ignore[union-attr]


def tell(node: CNode, frame: bytes, now: float = 0.0) -> list[bytes]:
    said(node, now)
    node.feed(b"\0" + stuff(frame), now)
    return said(node, now)


def invite(**changes: Any) -> bytes:
    terms: dict[str, Any] = {
        "lowest": 1, "highest": 1, "nonce": bytes(16), "profile": Profile.PSK, "incompat": 0, "compat": 0,
        "max_payload": 1024, "device": "n1",
    }  # fmt: skip
    return seal_open(FrameType.INVITE, encode(Invite(**(terms | changes))), from_host=True)


def refusal(frames: list[bytes]) -> Refuse:
    (frame,) = frames
    found = unseal(frame, from_host=False, session=0, cipher=None)
    assert found.type is FrameType.REFUSE
    return decode(Refuse, found.payload)


# -- the worked frames of tests/vectors/wire.json


def unhex(name: str) -> bytes:
    return bytes.fromhex(VECTORS["session"][name])


def test_the_worked_session_is_these_frames_at_the_node() -> None:
    """Without a random source all of its bytes follow from key, boot counter and what the host says."""
    node = CNode(key=unhex("key"), boot=VECTORS["session"]["boot"], random=False)
    assert tell(node, unhex("invite")) == [unhex("hello")]
    assert tell(node, unhex("welcome")) == [unhex("ready")]
    assert tell(node, unhex("task")) == [unhex("ack"), unhex("reply")]


def test_the_worked_session_is_these_frames_at_the_host() -> None:
    session = VECTORS["session"]
    rng = random.Random(session["seed"])
    shake = Handshake(Identity("n1", Profile.PSK, unhex("key")), max_payload=1024, random=rng.randbytes)
    assert shake.invite == unhex("invite")
    agreed = shake.on_hello(unhex("hello")[8:-4])
    assert agreed.welcome == unhex("welcome")
    assert agreed.session.seal(FrameType.TASK, unhex("task_message")) == unhex("task")
    for name, kind in (("ready", FrameType.READY), ("ack", FrameType.ACK), ("reply", FrameType.REPLY)):
        assert agreed.session.unseal(unhex(name)).type is kind
    assert agreed.session.unseal  # the node's frames came in the order of their counters


@pytest.mark.parametrize("name", VECTORS["messages"])
def test_a_worked_message_is_these_bytes(name: str) -> None:
    kind = next(kind for kind in MESSAGES if kind.__name__.lower() == name)
    data = bytes.fromhex(VECTORS["messages"][name])
    assert encode(decode(kind, data)) == data


def test_halves_are_rounded_as_worked_out() -> None:
    """Ties to even, denormals, and what is too large as the largest half: Python's table, the node's bytes."""
    numbers = np.array([int(bits, 16) for bits, _ in VECTORS["halves"]], np.uint32).view(np.float32)
    halves = np.array([int(bits, 16) for _, bits in VECTORS["halves"]], np.uint16)
    with np.errstate(over="ignore"):
        ours = np.clip(numbers, -65504, 65504).astype(np.float16)
    assert ours.view(np.uint16).tolist() == halves.tolist()
    assert CNode.halves(numbers) == halves.tobytes()


# -- who may have a session


@pytest.mark.parametrize("profile", [Profile.PSK, Profile.PSK_FS, Profile.PLAIN])
def test_each_profile_carries_tasks(profile: Profile) -> None:
    line = wire(CNode(plain=True), Faults(loss=0.1), profile=profile)
    for _ in range(3):
        assert ask(line, Job(TaskKind.INFER, objects=(model(5000),))).objects == (model(5000),)


@pytest.mark.parametrize(
    ("node", "terms", "reason"),
    [
        ({}, {"lowest": 2, "highest": 9}, Refuse(Reason.VERSION, "n1", 1, 1)),
        ({}, {"lowest": 0, "highest": 0}, Refuse(Reason.VERSION, "n1", 1, 1)),
        ({}, {"incompat": 0x11}, Refuse(Reason.INCOMPAT_BITS, "n1", None, None, 0x11)),
        ({}, {"profile": Profile.PLAIN}, Refuse(Reason.PROFILE, "n1")),
        ({"random": False}, {"profile": Profile.PSK_FS, "public_key": bytes(32)}, Refuse(Reason.PROFILE, "n1")),
        ({}, {"profile": Profile.PSK_FS}, Refuse(Reason.PROFILE, "n1")),
        ({"key": None}, {}, Refuse(Reason.NOT_ENROLLED, "n1")),
    ],
)
def test_terms_that_the_node_does_not_agree_to_are_refused_with_the_reason(
    node: dict[str, Any], terms: dict[str, Any], reason: Refuse
) -> None:
    assert refusal(tell(CNode(**node), invite(**terms))) == reason


def test_an_invitation_to_another_device_is_not_answered() -> None:
    assert tell(CNode(), invite(device="n2")) == []
    assert len(tell(CNode(), invite(device=None))) == 1


def test_the_same_invitation_gets_the_same_answer_and_another_one_another() -> None:
    node = CNode()
    first = tell(node, invite())
    assert tell(node, invite()) == first
    assert tell(node, invite(nonce=bytes(15) + b"\1")) != first


@pytest.mark.parametrize("bit", range(0, 8 * 20, 7))
def test_a_welcome_with_any_bit_turned_begins_nothing(bit: int) -> None:
    node = CNode(random=False)
    shake = Handshake(Identity("n1", Profile.PSK, KEY), max_payload=1024, random=random.Random(3).randbytes)
    (hello,) = tell(node, shake.invite)
    welcome = bytearray(shake.on_hello(hello[8:-4]).welcome[8:-4])
    genuine = bytes(welcome)
    welcome[bit // 8 % len(welcome)] ^= 1 << bit % 8
    assert tell(node, seal_open(FrameType.WELCOME, bytes(welcome), from_host=True)) == []
    assert len(tell(node, seal_open(FrameType.WELCOME, genuine, from_host=True))) == 1


def test_keys_that_were_in_use_begin_no_second_session() -> None:
    """A WELCOME from the record, after the session ended: the same keys from counter 0 would tell all."""
    node = CNode(random=False)
    shake = Handshake(Identity("n1", Profile.PSK, KEY), max_payload=1024, random=random.Random(3).randbytes)
    (hello,) = tell(node, shake.invite)
    agreed = shake.on_hello(hello[8:-4])
    first = tell(node, agreed.welcome)
    again = tell(node, agreed.welcome)  # it may be that READY was lost
    assert (len(first), len(again)) == (1, 1)
    assert first != again
    assert tell(node, agreed.session.seal(FrameType.BYE, b"")) == []
    assert tell(node, agreed.welcome) == []


def test_frames_that_come_again_are_not_heard_again() -> None:
    node = CNode()
    line = wire(node)
    sent: list[bytes] = []
    genuine = node.feed
    node.feed = lambda data, now: (sent.append(data), genuine(data, now))[1]  # type: ignore[method-assign,assignment]
    for _ in range(3):
        ask(line)
    done, dropped = len(node.done), node.counts.dropped
    for data in list(sent):
        genuine(data, line.now)
        assert FrameType.REPLY not in [frame[1] for frame in said(node, line.now)]
    assert len(node.done) == done
    assert node.counts.dropped > dropped


def test_a_reply_that_waits_is_not_taken_for_that_to_a_newer_task() -> None:
    """The line is full while the host asks for an old reply again, gives up and asks for something else."""
    gift = Payload(ObjectKind.VALUES, bytes(5000))
    node = CNode(random=False, work=lambda task, objects: (0, (), (gift,)))
    shake = Handshake(Identity("n1", Profile.PSK, KEY), max_payload=1024, random=random.Random(3).randbytes)
    (hello,) = tell(node, shake.invite)
    session = shake.on_hello(hello[8:-4])
    tell(node, session.welcome)

    def put(kind: FrameType, message: Message) -> None:
        node.feed(b"\0" + stuff(session.session.seal(kind, encode(message))), 1.0)
        node.tick(1.0)

    put(FrameType.TASK, Task(1, bytes(8), 0, 0, TaskKind.DESCRIBE))
    assert [session.session.unseal(frame).type for frame in said(node, 1.0)] == [FrameType.ACK, FrameType.REPLY]
    put(FrameType.REQUEST, Request(gift.ref.hash, 0, 1))
    put(FrameType.TASK, Task(1, bytes(8), 0, 0, TaskKind.DESCRIBE))
    put(FrameType.TASK, Task(2, bytes(8), 0, 0, TaskKind.INFER, None, (gift.ref,)))
    kinds = [session.session.unseal(frame).type for frame in said(node, 1.0)]
    assert kinds == [FrameType.DATA, FrameType.REQUEST]


# -- what it keeps


def test_each_start_counts_in_the_record_before_anything_is_sent() -> None:
    node = CNode(boot=7)
    assert node.record[4:8] == (7).to_bytes(4, "little")
    again = CNode(record=node.record)
    (announced,) = said(again)
    found = decode(Announce, unseal(announced, from_host=False, session=0, cipher=None).payload)
    assert found == Announce("n1", "test", 8)


def test_a_node_whose_storage_fails_says_nothing_at_all() -> None:
    node = CNode(storage_fails=True)
    assert node.status == ERR_DATA
    assert CNode().status == 0


@pytest.mark.parametrize("damage", [b"", bytes(72), b"\xff" * 72, b"\1\0\0\0" + bytes(68), b"\1\1\x20\0" + bytes(68)])
def test_a_record_that_is_none_makes_a_node_without_a_key(damage: bytes) -> None:
    node = CNode(record=damage)
    assert (node.status, node.device, node.key) == (0, "n1", None)


def test_a_key_comes_once_and_forget_erases_it() -> None:
    node = CNode("new", key=None)
    host = endpoint(key=bytes(range(100, 132)))
    line = MemoryWire(host, node)
    host.link_up(0.0)
    ticket = host.enrol(bytes(range(100, 132)), line.now)
    assert line.run(lambda: ticket.done, 20)
    assert (ticket.error, node.device, node.key) == (None, "n1", bytes(range(100, 132)))
    assert ask(line, Job(TaskKind.FORGET)).status == 0
    assert (node.device, node.key, node.record[8:40]) == ("new", None, bytes(32))
    assert refusal(tell(node, invite(device=None), line.now)) == Refuse(Reason.NOT_ENROLLED, "new")


def test_a_copy_of_the_record_from_before_is_refused_by_the_host() -> None:
    node = CNode(boot=5)
    old = node.record
    line = wire(CNode(record=CNode(record=old).record), boot=7)
    ask(line)
    with pytest.raises(NodeRefused, match="n1: its boot counter went back from 7 to 6"):
        ask(wire(CNode(record=old), boot=7))


def test_a_node_that_loses_power_in_a_transfer_comes_back_with_a_higher_counter() -> None:
    node = CNode()
    line = wire(node)
    host = host_of(line)
    ask(line)
    ticket = host.ask(Job(TaskKind.INFER, objects=(model(200_000),)), line.now)
    assert line.run(lambda: node.received_blocks > 50, 10)
    line.node = CNode(record=node.record)
    assert line.run(lambda: ticket.done, 60)
    assert isinstance(ticket.error, NodeRestarted)
    assert ask(line, Job(TaskKind.INFER, objects=(model(200_000),))).objects == (model(200_000),)


# -- lines


def test_frames_that_a_carrier_keeps_whole_need_no_zeros() -> None:
    node = CNode(stream=False)
    assert node.outgoing(0.0) is not None  # it announces itself
    shake = Handshake(Identity("n1", Profile.PSK, KEY), max_payload=4096, random=random.Random(3).randbytes)
    node.feed(shake.invite, 0.0)
    hello = node.outgoing(0.0)
    assert hello is not None
    agreed = shake.on_hello(hello[8:-4])
    assert decode_first(Hello, hello[8:-4], 16)[0].max_payload == 1024
    node.feed(agreed.welcome, 0.0)
    ready = node.outgoing(0.0)
    assert ready is not None
    assert agreed.session.unseal(ready).type is FrameType.READY


@pytest.mark.parametrize("noise", [b"\0" * 100_000, b"\xff" * 100_000, random.Random(1).randbytes(100_000)])
def test_noise_hinders_no_session(noise: bytes) -> None:
    node = CNode()
    node.feed(noise, 0.0)
    line = wire(node)
    ask(line)
    node.feed(noise, line.now)
    assert ask(line).status == 0


def test_it_announces_itself_once_a_second_until_it_is_invited() -> None:
    node = CNode()
    assert [len(said(node, t / 4)) for t in range(12)] == [1, 0, 0, 0] * 3
    tell(node, invite(), 3.0)
    assert said(node, 9.0) == []


def test_a_line_of_the_log_reaches_the_host() -> None:
    lines: list[str] = []
    node = CNode()
    line = wire(node)
    host_of(line)._on_log = lines.append
    node.log("31 °C")
    ask(line)
    assert lines == ["31 °C"]


def test_bytes_with_a_wrong_hash_are_fetched_again_once_and_then_the_task_fails() -> None:
    payload = Payload(ObjectKind.VALUES, b"x" * 5000)
    _ = payload.ref  # the hash is taken, then a byte changes
    object.__setattr__(payload, "data", b"x" * 4999 + b"y")
    line = wire(CNode())
    answer = ask(line, Job(TaskKind.INFER, objects=(payload,)))
    assert (answer.status, answer.problem) == (ERR_DATA, "object 0 came twice with a wrong hash")
    assert host_of(line).traffic.down_frames["data.values"] == 10
