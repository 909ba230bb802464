"""Messages: as the CDDL says, in one encoding, and nothing else is taken."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
import zcbor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtiny.link.frames import Found, FrameError, Splitter, unseal
from fedtiny.link.messages import (
    MAX_MESSAGE_BYTES,
    MESSAGES,
    Ack,
    Announce,
    Enrol,
    Enrolled,
    Hello,
    Invite,
    Message,
    ObjectKind,
    ObjectRef,
    Profile,
    Reason,
    Refuse,
    Reply,
    Request,
    Task,
    TaskKind,
    Welcome,
    decode,
    encode,
)
from fedtiny_export.errors import MessageError

from ..conftest import Outcome

CDDL = Path(__file__).parents[2] / "firmware/fedtiny.cddl"
# Two decoders with 10,000 examples each, 20 s together.
FUZZED = settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


def octets(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


def texts(shortest: int, longest: int) -> st.SearchStrategy[str]:
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=shortest, max_size=longest)
    return text.filter(lambda t: len(t.encode()) <= longest)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


devices, boards, profiles = texts(1, 31), texts(0, 31), st.sampled_from(Profile)
refs = st.lists(st.builds(ObjectRef, st.sampled_from(ObjectKind), octets(16), u32), min_size=1, max_size=4).map(tuple)
integers = st.integers(-(1 << 63), (1 << 64) - 1)


def numbers(width: int) -> st.SearchStrategy[Any]:
    return st.lists(integers | st.floats(width=width, allow_nan=False), max_size=8).map(tuple)


MESSAGE: st.SearchStrategy[Message] = st.one_of(
    st.builds(Invite, u8, u8, octets(16), profiles, u32, u32, u16, maybe(devices), maybe(octets(32))),
    st.builds(Hello, u8, octets(16), devices, profiles, u32, u32, u16, u32, u32, u8, boards, octets(8), u32, u32, u32,
              maybe(octets(32))),
    st.builds(Welcome, u16),
    st.builds(Refuse, st.sampled_from(Reason), devices, maybe(u8), maybe(u8), maybe(u32)),
    st.builds(Announce, devices, boards, u32),
    st.builds(Enrol, devices, octets(32)),
    st.builds(Enrolled, devices, octets(8)),
    st.builds(Task, u32, octets(8), u32, u8, st.sampled_from(TaskKind), maybe(numbers(32)), maybe(refs)),
    st.builds(Reply, u32, octets(8), u32, u8, u8, maybe(numbers(64)), maybe(refs), maybe(texts(0, 95))),
    st.builds(Request, octets(16), u32, u64),
    st.builds(Ack, u32),
)  # fmt: skip


@settings(max_examples=2000, deadline=None)
@given(MESSAGE)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    data = encode(message)
    assert decode(type(message), data) == message
    assert all(kind is type(message) or refused(kind, data) or kind_looks_alike(kind, message) for kind in MESSAGES)


def refused(kind: type[Message], data: bytes) -> bool:
    try:
        decode(kind, data)
    except MessageError:
        return True
    return False


def kind_looks_alike(kind: type[Message], message: Message) -> bool:
    """ACK and WELCOME are one integer, TASK and REPLY without extras five fields: the frame's type tells them apart."""
    return {kind, type(message)} in ({Ack, Welcome}, {Task, Reply})


@settings(max_examples=200, deadline=None)
@given(MESSAGE)
def test_what_is_encoded_is_what_the_cddl_says(message: Message) -> None:
    name = type(message).__name__.lower()
    assert MODEL.my_types[name].validate_str(encode(message))


MODEL = zcbor.DataTranslator.from_cddl(CDDL.read_text(), 16)


def test_floats_have_the_width_of_the_cddl() -> None:
    task = Task(1, bytes(8), 0, 0, TaskKind.TRAIN, (1.5, 2))
    assert encode(task)[-7:] == bytes.fromhex("82fa3fc0000002")
    reply = Reply(1, bytes(8), 0, 0, 0, (1.5,))
    assert encode(reply)[-10:] == bytes.fromhex("81fb3ff8000000000000")


def test_a_worked_message_is_these_bytes() -> None:
    """By hand, from RFC 8949: a map of five, keys in order."""
    task = Task(258, bytes(range(8)), 3, 0, TaskKind.DESCRIBE)
    assert encode(task) == bytes.fromhex("a5 00 190102 01 480001020304050607 02 03 03 00 04 01")
    request = Request(bytes(16), 70000, 1 << 63)
    assert encode(request) == bytes.fromhex("a3 00 50" + "00" * 16 + "01 1a00011170 02 1b8000000000000000")


@pytest.mark.parametrize(
    "data",
    [
        "",
        "a10007" + "00",  # bytes after it
        "a2000701" + "01",  # an unknown key
        "a200070007",  # a key twice
        "a1001807",  # an integer longer than needed
        "bf0007ff",  # an indefinite map
        "a1004107",  # bytes for an integer
        "a100f5",  # true is no 1
        "a100fb401c000000000000",  # nor is 7.0 a 7
        "a10020",  # -1
        "a1001b0000000100000000",  # 33 bits
        "d9d9f7a10007",  # a tag
        "a100c24107",  # a bignum
        "8107",  # no map
        "a1" * 500,
    ],
)
def test_what_is_not_the_one_encoding_of_a_message_is_refused(data: str) -> None:
    assert decode(Ack, bytes.fromhex("a10007")) == Ack(7)
    with pytest.raises(MessageError):
        decode(Ack, bytes.fromhex(data))


def test_a_message_larger_than_any_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cbor2, "loads", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(MessageError, match="at most"):
        decode(Ack, bytes(MAX_MESSAGE_BYTES + 1))


@pytest.mark.parametrize(
    "message",
    [Ack(-1), Ack(1 << 32), Enrol("", bytes(32)), Enrol("n", bytes(31)), Announce("n" * 32, "", 0), Ack(None)],  # type: ignore[arg-type]
)
def test_a_message_outside_of_its_types_is_not_written(message: Message) -> None:
    with pytest.raises(MessageError):
        encode(message)


cborish = st.dictionaries(
    st.integers(0, 16), integers | st.binary(max_size=40) | st.text(max_size=8) | st.lists(st.floats(), max_size=3)
).map(cbor2.dumps)
WHOLE = (
    Invite(1, 1, bytes(16), Profile.PSK, 0, 0, 1024, "n1", bytes(32)),
    Hello(1, bytes(16), "n1", Profile.PSK, 0, 0, 1024, 1 << 20, 1, 1, "board", bytes(8), 0, 0, 0),
    Refuse(Reason.VERSION, "n1", 2, 2),
    Task(1, bytes(8), 2, 0, TaskKind.TRAIN, (1, 0.5), (ObjectRef(ObjectKind.MODEL, bytes(16), 7),)),
    Reply(1, bytes(8), 2, 0, 0, (1, 0.5), (ObjectRef(ObjectKind.VALUES, bytes(16), 7),), "why"),
    Request(bytes(16), 3, 255),
)


def bent(message: Message, changes: list[tuple[int, int, bytes]]) -> bytes:
    """A message with some of its bytes changed, lost or put in."""
    data = bytearray(encode(message))
    for at, lost, put in changes:
        data[at : at + lost] = put
    return bytes(data)


changes = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 2), st.binary(max_size=2)), max_size=3)


@FUZZED
@given(
    st.binary(max_size=100) | cborish | st.builds(bent, st.sampled_from(WHOLE), changes),
    st.sampled_from(MESSAGES),
)
def any_bytes_are_a_message_or_our_one_error(data: bytes, kind: type[Message]) -> None:
    try:
        message = decode(kind, data)
    except MessageError:
        return
    assert encode(message) == data


@FUZZED
@given(st.lists(st.binary(max_size=100), max_size=3))
def any_stream_is_frames_and_noise(pieces: list[bytes]) -> None:
    splitter = Splitter()
    for piece in pieces:
        for found in splitter.feed(piece):
            if isinstance(found, Found):
                with pytest.raises(FrameError):
                    unseal(found.frame, from_host=False, session=1, cipher=None)


@pytest.mark.parametrize("decoder", [any_bytes_are_a_message_or_our_one_error, any_stream_is_frames_and_noise])
def test_ten_thousand_inputs_of_a_decoder_bring_nothing_but_our_one_error(
    decoder: Callable[[], None], outcome: Outcome
) -> None:
    """10 s and 5 s."""
    decoder()
    outcome("fuzzed decoders", end="host", tried=FUZZED.max_examples, what="inputs", result="0 other errors")


@pytest.mark.parametrize(
    "head", ["9b0000000fffffffff", "5b0000000fffffffff", "7b0000000fffffffff", "bb0000000fffffffff", "9a7fffffff"]
)
def test_a_length_of_gigabytes_costs_no_memory(head: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for prefix in ("", "a100", "a4000001020304"):
        with pytest.raises(MessageError):
            decode(Task, bytes.fromhex(prefix + head) + bytes(1000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB
