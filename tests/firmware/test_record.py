"""What a node keeps over a loss of power: the record in two halves of storage, cut off at every byte written."""

from __future__ import annotations

import ctypes as ct
import subprocess
import zlib

import pytest

from fedtiny.boards import root
from tests.conftest import Outcome

SLOT, LONGEST = 128, 112
READ = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_uint32, ct.c_uint32, ct.POINTER(ct.c_uint8))
ERASE = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_uint32)


class Storage(ct.Structure):
    _fields_ = [("ctx", ct.c_void_p), ("slots", ct.c_uint32), ("read", READ), ("write", READ), ("erase", ERASE)]


class Flash:
    """Two sectors as NOR flash has them: erasing sets all bits, writing only clears some. Power lasts `steps` bytes."""

    def __init__(self, library: ct.CDLL, slots: int) -> None:
        self.halves = [bytearray(b"\xff" * SLOT * slots) for _ in range(2)]
        self.steps: int | None = None
        self.erased = 0
        self._library = library
        self._storage = Storage(None, slots, READ(self._read), READ(self._write), ERASE(self._erase))

    def save(self, record: bytes) -> bool:
        return int(self._library.record_save(ct.byref(self._storage), record, len(record))) == 0

    def load(self, capacity: int = LONGEST) -> bytes:
        to = ct.create_string_buffer(capacity + 1)
        count = self._library.record_load(ct.byref(self._storage), to, capacity)
        return to.raw[:count]

    def _step(self) -> bool:
        if self.steps is None:
            return True
        self.steps -= 1
        return self.steps >= 0

    def _read(self, _: object, half: int, slot: int, to: object) -> int:
        ct.memmove(to, bytes(self.halves[half][slot * SLOT : (slot + 1) * SLOT]), SLOT)  # type: ignore[arg-type]
        return 0

    def _write(self, _: object, half: int, slot: int, data: object) -> int:
        for i in range(SLOT):
            if not self._step():
                return 1
            self.halves[half][slot * SLOT + i] &= data[i]  # type: ignore[index]
        return 0

    def _erase(self, _: object, half: int) -> int:
        self.erased += 1
        for i in range(len(self.halves[half])):
            if i % 16 == 0 and not self._step():
                return 1
            self.halves[half][i] = 0xFF
        return 0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ct.CDLL:
    port = root() / "firmware" / "port"
    made = tmp_path_factory.mktemp("record") / "record.so"
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, str(port / "record.c"), "-o", str(made)], check=True)
    return ct.CDLL(str(made))


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_the_last_record_saved_is_the_one_loaded(slots: int, library: ct.CDLL) -> None:
    flash = Flash(library, slots)
    assert flash.load() == b""
    for number in range(40):
        record = bytes([number]) * (1 + number * 3 % LONGEST)
        assert flash.save(record)
        assert flash.load() == record
    assert flash.erased == -(-40 // slots)  # one erasure for as many records as a half has slots


@pytest.mark.parametrize("slots", [1, 3])
def test_power_that_fails_at_any_byte_leaves_the_old_record_or_the_new_one(
    slots: int, library: ct.CDLL, outcome: Outcome
) -> None:
    found = {b"": 0, b"old": 0, b"new": 0}
    for before in range(2 * slots + 1):
        for steps in range(SLOT + SLOT * slots // 16 + 1):
            flash = Flash(library, slots)
            for number in range(before):
                assert flash.save(b"old" if number == before - 1 else bytes([number]))
            flash.steps = steps
            saved = flash.save(b"new")
            after = flash.load()
            found[after] += 1
            assert after == (b"new" if saved or after == b"new" else b"old" if before else b"")
            flash.steps = None
            assert flash.save(b"next")
            assert flash.load() == b"next"
    assert all(found.values())
    outcome(
        "power lost at every flash operation",
        end="node",
        tried=sum(found.values()),
        what="cuts, at each byte written and sixteen erased",
        result="the old record or the new one",
    )


def test_a_record_that_no_longer_is_what_was_written_does_not_count(library: ct.CDLL) -> None:
    flash = Flash(library, 4)
    assert flash.save(b"first")
    assert flash.save(b"second")
    for at in range(SLOT):
        flash.halves[0][SLOT + at] ^= 1
        assert flash.load() == b"first"
        flash.halves[0][SLOT + at] ^= 1
    assert flash.load() == b"second"


def test_a_record_too_long_or_empty_is_refused(library: ct.CDLL) -> None:
    flash = Flash(library, 2)
    assert flash.save(bytes(LONGEST))
    assert not flash.save(bytes(LONGEST + 1))
    assert not flash.save(b"")
    assert flash.load(LONGEST - 1) == b""


def test_the_slot_is_laid_out_as_the_header_says(library: ct.CDLL) -> None:
    flash = Flash(library, 2)
    assert flash.save(b"record")
    body = b"FTRC" + (1).to_bytes(4, "little") + (6).to_bytes(4, "little") + b"record"
    body += bytes(SLOT - 4 - len(body))
    assert flash.halves[0][:SLOT] == body + zlib.crc32(body).to_bytes(4, "little")
