"""Who may have a session: the one with the key, and nobody else, whatever is said on the line."""

from __future__ import annotations

import random
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import pytest

from fedtiny.link.endpoint import Endpoint
from fedtiny.link.frames import FrameType, seal_open, stuff
from fedtiny.link.memory import Faults, MemoryWire
from fedtiny.link.messages import Hello, Invite, Profile, Reason, Refuse, decode, encode
from fedtiny.link.session import Handshake, Identity, Session, hello_mac
from fedtiny_export.errors import ConfigError, MessageError, NoAnswer, NodeRefused

from ..conftest import Outcome
from .node import Node
from .wires import KEY, AnyNode, ask, endpoint, make_node, wire

WRONG = "wrong key, downgrade, rollback, other version"
REFUSED = "refused: which node, why, what to do"


def connects(line: MemoryWire, limit_s: float = 20.0) -> bool:
    host = line.host
    assert isinstance(host, Endpoint)
    return line.run(lambda: host.connected, limit_s)


@pytest.mark.usefixtures("each_node")
@pytest.mark.parametrize("profile", [Profile.PSK, Profile.PLAIN])
def test_two_ends_with_the_same_key_agree(profile: Profile) -> None:
    node = make_node(key=None if profile is Profile.PLAIN else KEY)
    line = wire(node, profile=profile)
    assert connects(line)
    assert ask(line).status == 0


@pytest.mark.usefixtures("each_node")
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_handshake_whose_first_frames_are_lost_is_done_anyway(lost: int, outcome: Outcome) -> None:
    line = wire()
    host = line.host
    for _ in range(lost):
        line.run(lambda: line.down.next_arrival() is not None or line.up.next_arrival() is not None, 5)
        line.cut()
    assert isinstance(host, Endpoint)
    assert connects(line)
    outcome("first frames of a handshake lost", end="both", tried=1, what="handshakes", result="a session anyway")


@pytest.mark.usefixtures("each_node")
@pytest.mark.parametrize(
    ("what", "terms", "reason", "advice"),
    [
        ({"key": bytes(32)}, {}, "key", "does not have the key"),
        ({"boot": 4}, {"boot": 5}, "boot_counter", "went back from 5 to 4"),
        ({"key": None}, {}, "not_enrolled", "fedtiny fleet enrol"),
        ({}, {"profile": Profile.PLAIN}, "profile", "refuses the profile plain"),
    ],
)
def test_a_refusal_says_which_node_why_and_what_to_do(
    what: dict[str, Any], terms: dict[str, object], reason: str, advice: str, outcome: Outcome
) -> None:
    refused(make_node(**what), terms, reason, advice)
    outcome(WRONG, end="both", tried=1, what="nodes", result=REFUSED)


@pytest.mark.parametrize(
    ("node", "reason", "advice"),
    [(Node(version=2), "version", "versions 2 to 2"), (Node(incompat=0x80), "incompat_bits", "features 0x80")],
)
def test_a_node_of_another_firmware_is_refused_with_what_to_do(
    node: Node, reason: str, advice: str, outcome: Outcome
) -> None:
    refused(node, {}, reason, advice)
    outcome(WRONG, end="both", tried=1, what="nodes", result=REFUSED)


def refused(node: AnyNode, terms: dict[str, object], reason: str, advice: str) -> None:
    line = wire(node, **terms)
    with pytest.raises(NodeRefused, match=f"^n1: .*{advice}") as caught:
        ask(line)
    assert (caught.value.node, caught.value.reason) == ("n1", reason)
    assert line.now < 10  # well before the patience for a silent node ends


def test_a_node_that_is_not_there_is_said_to_be_silent_on_that_link() -> None:
    with pytest.raises(NoAnswer, match="n1: no answer on memory for 30 s"):
        ask(wire(faults=Faults(loss=1.0)))


@pytest.mark.usefixtures("each_node")
def test_a_node_may_come_back_with_the_same_boot_counter() -> None:
    assert connects(wire(make_node(boot=5), boot=5))


def handshake(profile: Profile = Profile.PSK) -> tuple[Handshake, Hello]:
    key = None if profile is Profile.PLAIN else KEY
    shake = Handshake(Identity("n1", profile, key), max_payload=1024, random=random.Random(1).randbytes)
    hello = Hello(1, bytes(16), "n1", profile, 0, 0, 1024, 1 << 20, 1, 1, "test", bytes(8), 0, 0, 0)
    return shake, hello


def answer(shake: Handshake, hello: Hello, key: bytes = KEY) -> bytes:
    body = encode(hello)
    return body + hello_mac(key, shake.invite[8:-4], body)


def test_keys_are_derived_as_written_down() -> None:
    """Written once more from PROTOCOL.md, with hashlib alone."""
    shake, hello = handshake()
    payload = answer(shake, hello)
    agreed = shake.on_hello(payload)

    def b(count: int, key: bytes, data: bytes) -> bytes:
        return blake2b(data, digest_size=count, key=key).digest()

    invite = shake.invite[8:-4]
    k_hs = b(32, KEY, b"fedtiny handshake 1")
    assert payload[-16:] == b(16, k_hs, b"hello" + b(32, b"", invite) + payload[:-16])
    t2 = b(32, b"", invite + payload)
    welcome = agreed.welcome[8:-4]
    assert welcome[-16:] == b(16, k_hs, b"welcome" + t2 + welcome[:-16])
    keys = b(64, KEY, b"fedtiny session 1" + t2)
    node = Session(agreed.session.number, keys[:32], keys[32:], from_host=False)
    assert node.unseal(agreed.session.seal(FrameType.TASK, b"to the node")).payload == b"to the node"
    assert agreed.session.unseal(node.seal(FrameType.READY, b"to the host")).payload == b"to the host"


def test_forward_secrecy_mixes_in_what_was_never_sent() -> None:
    """X25519 as RFC 7748 defines it: both ends get the same, from public keys that are on the line."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    from fedtiny.link.session import session_keys, transcript

    shake, hello = handshake(Profile.PSK_FS)
    secret = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    payload = answer(shake, replace(hello, public_key=secret.public_key().public_bytes_raw()))
    agreed = shake.on_hello(payload)
    invite = decode(Invite, shake.invite[8:-4])
    shared = secret.exchange(X25519PublicKey.from_public_bytes(invite.public_key or b""))
    up, down = session_keys(KEY, transcript(shake.invite[8:-4], payload), shared)
    node = Session(agreed.session.number, up, down, from_host=False)
    assert agreed.session.unseal(node.seal(FrameType.READY, b"")).type is FrameType.READY


@pytest.mark.parametrize("public_key", [None, bytes(32), (1).to_bytes(32, "little")])
def test_a_public_key_that_gives_no_secret_is_dropped(public_key: bytes | None) -> None:
    shake, hello = handshake(Profile.PSK_FS)
    with pytest.raises(MessageError):
        shake.on_hello(answer(shake, replace(hello, public_key=public_key)))


@pytest.mark.parametrize("profile", [Profile.PLAIN, Profile.PSK_FS])
def test_a_hello_with_another_profile_is_no_way_in(profile: Profile) -> None:
    shake, hello = handshake()
    with pytest.raises(NodeRefused, match="tries to weaken it"):
        shake.on_hello(answer(shake, replace(hello, profile=profile)))


def test_every_bit_of_a_hello_counts(outcome: Outcome) -> None:
    shake, hello = handshake()
    genuine = answer(shake, hello)
    for bit in range(8 * len(genuine)):
        forged = bytearray(genuine)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((MessageError, NodeRefused)):
            shake.on_hello(bytes(forged))
    assert shake.on_hello(genuine).hello == hello
    outcome(WRONG, end="host", tried=8 * len(genuine), what="HELLOs with a bit changed", result="0 taken")


def test_a_hello_to_another_invite_is_a_replay() -> None:
    first, hello = handshake()
    second = Handshake(Identity("n1", Profile.PSK, KEY), max_payload=1024, random=random.Random(2).randbytes)
    with pytest.raises(NodeRefused, match="does not have the key"):
        second.on_hello(answer(first, hello))


@pytest.mark.usefixtures("each_node")
def test_forged_frames_of_a_stranger_hinder_no_session() -> None:
    line = wire()
    host = line.host
    assert isinstance(host, Endpoint)
    _, hello = handshake()
    stranger = encode(hello) + bytes(16)
    for kind, payload in (
        (FrameType.HELLO, stranger),
        (FrameType.REFUSE, encode(Refuse(Reason.NOT_ENROLLED, "n1"))),
        (FrameType.REFUSE, encode(Refuse(Reason.VERSION, "n1", 9, 9))),
    ):
        frame = seal_open(kind, payload, from_host=False)
        line.run(lambda: line.down.next_arrival() is not None, 1)
        host.feed(b"\0" + stuff(frame), line.now)
    assert connects(line)
    assert ask(line).status == 0
    host.feed(b"\0" + stuff(seal_open(FrameType.BYE, b"", from_host=False, session=1)), line.now)
    host.feed(b"\0" + stuff(seal_open(FrameType.REFUSE, encode(Refuse(Reason.KEY, "n1")), from_host=False)), line.now)
    assert host.connected


@pytest.mark.usefixtures("each_node")
def test_a_node_without_a_key_is_enrolled_over_the_line() -> None:
    node = make_node(key=None)
    line = wire(node)
    host = line.host
    assert isinstance(host, Endpoint)
    key = bytes(range(100, 132))
    ticket = host.enrol(key, line.now)
    assert line.run(lambda: ticket.done, 20)
    assert (ticket.error, node.key) == (None, key)
    assert connects(line)
    assert ask(line).status == 0


@pytest.mark.usefixtures("each_node")
def test_a_node_with_a_key_takes_no_other() -> None:
    line = wire(make_node())
    host = line.host
    assert isinstance(host, Endpoint)
    ticket = host.enrol(bytes(32), line.now)
    assert line.run(lambda: ticket.done, 40)
    assert isinstance(ticket.error, NodeRefused)
    assert "it has a key already" in str(ticket.error)


def test_a_key_is_32_bytes_and_in_no_log() -> None:
    with pytest.raises(ConfigError, match="needs a key of 32 bytes"):
        Identity("n1", Profile.PSK, b"short")
    assert KEY.hex() not in repr(Identity("n1", Profile.PSK, KEY))
    assert repr(KEY) not in repr(endpoint().identity)
