"""The C codec against Python's, message by message: the same bytes, and the same refusals."""

from __future__ import annotations

import ctypes as ct
import math
import random
import struct
from collections.abc import Callable
from typing import Any

import cbor2
import pytest

from fedtiny.link.messages import (
    MESSAGES,
    Message,
    ObjectKind,
    ObjectRef,
    Profile,
    Reason,
    TaskKind,
    decode,
    encode,
)
from fedtiny_export.errors import MessageError

from ..conftest import Outcome
from .c_build import ROOT, TARGET, build, needs_gcc

WIRE = ROOT / "firmware/src/wire"
MESSAGES_COMPARED, MUTATED = 50_000, 50_000
SAME = "C and Python write the same messages"
pytestmark = needs_gcc
Again = Callable[[int, bytes], bytes]


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Again:
    """What the C codec makes of a message's bytes; nothing: it refuses them."""
    out = tmp_path_factory.mktemp("codec") / "codec.so"
    files = [TARGET / "codec.c", WIRE / "message.c", WIRE / "cbor.c"]
    library = ct.CDLL(str(build(out, files, "-shared", "-fPIC")))
    buffer = ct.create_string_buffer(1 << 16)

    def run(kind: int, data: bytes) -> bytes:
        count = library.codec_again(kind, data, len(data), buffer)
        return ct.string_at(buffer, count)

    return run


class Draw:
    """Random messages by the types of the CDDL, written once more here."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def uint(self, bits: int) -> int:
        return self.rng.getrandbits(self.rng.randint(0, bits)) if self.rng.random() < 0.9 else (1 << bits) - 1

    def text(self, shortest: int, longest: int) -> str:
        letters = "abcxyz019-_äß→漢😀"
        while True:
            found = "".join(self.rng.choice(letters) for _ in range(self.rng.randint(shortest, longest)))
            if len(found.encode()) <= longest:
                return found

    def octets(self, count: int) -> bytes:
        return self.rng.randbytes(count)

    def number(self, form: str) -> int | float:
        kind = self.rng.randrange(4)
        if kind == 0:
            return self.uint(64)
        if kind == 1:
            return -1 - self.uint(63)
        if kind == 2:
            return self.rng.choice([0.0, -0.0, 1.0, 0.5, math.inf, -math.inf])
        return float(struct.unpack(form, struct.pack(form, self.rng.gauss(0, 1e3)))[0])

    def numbers(self, form: str) -> tuple[int | float, ...]:
        return tuple(self.number(form) for _ in range(self.rng.choice([0, 1, 2, 5, 11, 23, 24, 60])))

    def refs(self) -> tuple[ObjectRef, ...]:
        kinds = list(ObjectKind)
        return tuple(
            ObjectRef(self.rng.choice(kinds), self.octets(16), self.uint(32)) for _ in range(self.rng.randint(1, 4))
        )

    def maybe(self, make: Callable[[], Any]) -> Any:
        return make() if self.rng.random() < 0.5 else None

    def message(self, kind: int) -> Message:
        rng = self.rng
        device = self.text(1, 31)
        number, run, rounds, attempt = self.uint(32), self.octets(8), self.uint(32), self.uint(8)
        profile = rng.choice(list(Profile))
        makers: list[Callable[[], tuple[Any, ...]]] = [
            lambda: (self.uint(8), self.uint(8), self.octets(16), profile, self.uint(32), self.uint(32), self.uint(16),
                     self.maybe(lambda: device), self.maybe(lambda: self.octets(32))),
            lambda: (self.uint(8), self.octets(16), device, profile, self.uint(32), self.uint(32), self.uint(16),
                     self.uint(32), self.uint(32), self.uint(8), self.text(0, 31), self.octets(8), self.uint(32),
                     self.uint(32), self.uint(32), self.maybe(lambda: self.octets(32))),
            lambda: (self.uint(16),),
            lambda: (rng.choice(list(Reason)), device, *(self.maybe(lambda b=b: self.uint(b)) for b in (8, 8, 32))),
            lambda: (device, self.text(0, 31), self.uint(32)),
            lambda: (device, self.octets(32)),
            lambda: (device, self.octets(8)),
            lambda: (number, run, rounds, attempt, rng.choice(list(TaskKind)),
                     self.maybe(lambda: self.numbers("<f")), self.maybe(self.refs)),
            lambda: (number, run, rounds, attempt, self.uint(8), self.maybe(lambda: self.numbers("<d")),
                     self.maybe(self.refs), self.maybe(lambda: self.text(0, 95))),
            lambda: (self.octets(16), self.uint(32), self.uint(64)),
            lambda: (number,),
        ]  # fmt: skip
        return MESSAGES[kind](*makers[kind]())


def test_fifty_thousand_messages_have_the_same_bytes_on_both_ends(again: Again, outcome: Outcome) -> None:
    draw = Draw(1)
    for i in range(MESSAGES_COMPARED):
        kind = i % len(MESSAGES)
        data = encode(draw.message(kind))
        assert again(kind, data) == data, (MESSAGES[kind].__name__, data.hex())
    outcome(SAME, end="both", tried=MESSAGES_COMPARED, what="messages of every type", result="identical bytes")


def excused(data: bytes) -> bool:
    """What Python refuses and a node may take: text that is no UTF-8, a NaN with other bits than Python's."""
    try:
        found = cbor2.loads(data, str_errors="replace")
    except Exception:
        return False
    fields = list(found.values()) if isinstance(found, dict) else []
    numbers = [n for f in fields if isinstance(f, list) for n in f]
    text = any(isinstance(f, str) and "�" in f for f in fields)
    return text or any(isinstance(n, float) and math.isnan(n) for n in numbers)


def test_both_ends_refuse_the_same_damaged_messages(again: Again, outcome: Outcome) -> None:
    draw = Draw(2)
    refused = 0
    for i in range(MUTATED):
        kind = i % len(MESSAGES)
        data = bytearray(encode(draw.message(kind)))
        for _ in range(draw.rng.randint(1, 2)):
            at = draw.rng.randrange(min(len(data), 40) if draw.rng.random() < 0.7 else len(data))
            match draw.rng.randrange(4):
                case 0:
                    data[at] ^= 1 << draw.rng.randrange(8)
                case 1:
                    data[at] = draw.rng.choice(
                        [0, 23, 24, 25, 26, 27, 31, 0x3B, 0x7F, 0x9F, 0xBF, 0xF5, 0xF9, 0xFB, 0xFF]
                    )
                case 2:
                    del data[at]
                case _:
                    data.insert(at, draw.rng.randrange(256))
            if not data:
                data = bytearray(b"\0")
        found = again(kind, bytes(data))
        try:
            ours = encode(decode(MESSAGES[kind], bytes(data)))
        except MessageError:
            refused += 1
            assert found == b"" or excused(bytes(data)), (MESSAGES[kind].__name__, data.hex())
        else:
            assert found == ours == bytes(data)
    assert refused > MUTATED // 2
    outcome(SAME, end="both", tried=MUTATED, what="damaged messages", result="the same refused")


@pytest.mark.parametrize("length", [0, 1, 2])
def test_the_c_codec_refuses_what_is_cut(again: Again, length: int) -> None:
    for kind in range(len(MESSAGES)):
        assert again(kind, encode(Draw(3).message(kind))[:length]) == b""
