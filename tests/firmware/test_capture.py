"""Samples that an application takes itself (fedtiny_capture.h): what a ring keeps, in RAM and in flash, and what a node
reads of it.
"""

from __future__ import annotations

import ctypes as ct
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from fedtiny_export.core import _library

from ..conftest import Outcome

U8, U16, U32, PTR = ct.c_uint8, ct.c_uint16, ct.c_uint32, ct.c_void_p
F32, I16, BYTE = 0, 1, 2
OLDEST, RESERVOIR, KEEP = 0, 1, 2
OK, NOMEM, ARG, NONFINITE, DATA = 0, 4, 6, 7, 8
MOVE = ct.CFUNCTYPE(ct.c_int, PTR, U32, U32, PTR, U32)
ERASE = ct.CFUNCTYPE(ct.c_int, PTR, U32)
READ = ct.CFUNCTYPE(ct.c_int, PTR, U32, PTR, ct.POINTER(U16))


class _Store(ct.Structure):
    _fields_ = [("ctx", PTR), ("slots", U32), ("group", U32), ("read", MOVE), ("write", MOVE), ("erase", ERASE)]


class _Config(ct.Structure):
    _fields_ = [
        *(("store", ct.POINTER(_Store)), ("order", ct.POINTER(U16)), ("floats", U32), ("classes", U16)),
        *(("form", U8), ("policy", U8), ("scale", ct.c_float), ("offset", ct.c_float)),
        *(("dev_every", U16), ("dev_most", U16), ("seed", U32)),
    ]


class _Data(ct.Structure):
    _fields_ = [("ctx", PTR), ("read", READ), ("count", U32), ("dev_count", U32)]


class _Bank(ct.Structure):
    _fields_ = [("at", PTR), ("slot_bytes", U32)]


@pytest.fixture(scope="module")
def lib() -> ct.CDLL:
    library = _library()
    library.ft_ring_in_bank.restype = _Store
    library.ft_ring_in_bank.argtypes = [ct.POINTER(_Bank), PTR, U32, U32, U8]
    library.ft_ring_data.restype = ct.POINTER(_Data)
    library.ft_ring_label.argtypes = [PTR, U32, U16]
    return library


class Ring:
    """Samples are (a, b, c): any three numbers."""

    FLOATS = 3

    def __init__(self, lib: ct.CDLL, store: _Store, **terms: Any) -> None:
        self._lib, self._store = lib, store
        self._order = (U16 * store.slots)()
        usual: dict[str, Any] = {
            "floats": self.FLOATS,
            "classes": 5,
            "policy": OLDEST,
            "form": F32,
            "scale": 0.5,
            "seed": 3,
        }
        self._config = _Config(ct.pointer(store), self._order, **usual | terms)
        self._ring = ct.create_string_buffer(256)
        self.status = lib.ft_ring_start(self._ring, ct.byref(self._config))

    def put(self, *x: float) -> int:
        """The ticket. Raises ValueError with the status."""
        ticket = U32(99)
        status = self._lib.ft_ring_put(self._ring, (ct.c_float * self.FLOATS)(*x), ct.byref(ticket))
        if status:
            assert ticket.value == 0
            raise ValueError(status)
        return ticket.value

    def label(self, ticket: int, label: int) -> int:
        return int(self._lib.ft_ring_label(self._ring, ticket, label))

    def add(self, number: float, label: int = 0) -> int:
        ticket = self.put(number, 0, 0)
        if ticket:
            assert self.label(ticket, label) == OK
        return ticket

    @property
    def data(self) -> Any:
        return self._lib.ft_ring_data(self._ring)[0]

    @property
    def waiting(self) -> int:
        return int(self._lib.ft_ring_waiting(self._ring))

    def samples(self) -> list[tuple[tuple[float, ...], int]]:
        """As a node reads them, the development set first."""
        found, data = [], self.data
        for index in range(data.count):
            x, label = (ct.c_float * self.FLOATS)(), U16(99)
            assert data.read(data.ctx, index, x, label) == 0
            found.append((tuple(x), label.value))
        assert data.read(data.ctx, data.count, (ct.c_float * self.FLOATS)(), U16()) != 0
        return found

    def firsts(self) -> list[float]:
        return [x[0] for x, _ in self.samples()]


def in_ram(lib: ct.CDLL, slots: int, **terms: Any) -> Ring:
    form = terms.get("form", F32)
    slot_bytes = lib.ft_ring_slot_bytes(3, form)
    memory, bank = (ct.c_uint64 * (slots * slot_bytes // 8 + 1))(), _Bank()
    ring = Ring(lib, lib.ft_ring_in_bank(bank, memory, slots * slot_bytes + 7, 3, form), **terms)
    ring.memory = memory, bank  # type: ignore[attr-defined]
    return ring


class Flash:
    """Sectors that are erased as a whole; writing only clears bits. Power may fail within any write or erasure."""

    def __init__(self, lib: ct.CDLL, sectors: int, group: int, form: int = F32) -> None:
        self.slot_bytes = lib.ft_ring_slot_bytes(3, form)
        self.memory = bytearray(b"\x00" * sectors * group * self.slot_bytes)
        self.power: int | None = None
        self.done, self.erased = 0, 0
        self._group, self._random = group, random.Random(4)
        self.store = _Store(None, sectors * group, group, MOVE(self._read), MOVE(self._write), ERASE(self._erase))

    def _works(self) -> bool:
        self.done += 1
        return self.power is None or self.done <= self.power

    def _read(self, _: object, slot: int, at: int, to: int, count: int) -> int:
        first = slot * self.slot_bytes + at
        ct.memmove(to, bytes(self.memory[first : first + count]), count)
        return 0

    def _write(self, _: object, slot: int, at: int, data: int, count: int) -> int:
        assert at % 8 == count % 8 == 0
        first, new = slot * self.slot_bytes + at, ct.string_at(data, count)
        for i in range(0, count, 4):
            works = self._works()
            if not works and self.power is not None and self.done > self.power + 1:
                return 1
            for k in range(i, i + 4):
                if self.power is None:
                    assert self.memory[first + k] == 0xFF, "written before"
                self.memory[first + k] &= new[k] | (0 if works else self._random.randrange(256))
            if not works:
                return 1
        return 0

    def _erase(self, _: object, slot: int) -> int:
        works, bytes_each = self._works(), self._group * self.slot_bytes
        assert slot % self._group == 0
        if not works and self.power is not None and self.done > self.power + 1:
            return 1
        first = slot * self.slot_bytes
        self.memory[first : first + bytes_each] = b"\xff" * bytes_each if works else self._random.randbytes(bytes_each)
        self.erased += 1
        return int(not works)


def test_only_what_is_labelled_is_read_and_a_label_may_come_late(lib: ct.CDLL) -> None:
    ring = in_ram(lib, 4)
    first, second = ring.put(1, 2, 3), ring.put(4, 5, 6)
    assert (ring.data.count, ring.waiting) == (0, 2)
    assert ring.label(second, 4) == OK
    assert ring.samples() == [((4, 5, 6), 4)]
    assert ring.label(first, 0) == OK
    assert ring.samples() == [((4, 5, 6), 4), ((1, 2, 3), 0)]
    assert ring.label(first, 1) == ARG, "a label comes once"
    assert ring.label(77, 1) == ARG
    assert ring.label(ring.put(0, 0, 0), 5) == ARG, "no such class"


def test_the_oldest_goes_whether_or_not_it_has_a_label(lib: ct.CDLL) -> None:
    ring = in_ram(lib, 4)
    tickets = [ring.put(k, 0, 0) for k in range(4)]
    for k in (1, 2, 3):
        assert ring.label(tickets[k], k) == OK
    ring.add(10)
    assert ring.label(tickets[0], 0) == ARG, "it is gone"
    ring.add(11)
    assert sorted(ring.firsts()) == [2, 3, 10, 11]


def test_the_development_set_stays_as_it_was(lib: ct.CDLL) -> None:
    ring = in_ram(lib, 8, dev_every=3, dev_most=2)
    for k in range(1, 60):
        ring.add(k, k % 5)
        assert ring.data.dev_count == min(k // 3, 2)
        assert ring.samples()[:2][: ring.data.dev_count] == [((3, 0, 0), 3), ((6, 0, 0), 1)][: k // 3]
        assert len(set(ring.firsts())) == min(k, 8)
    assert sorted(ring.firsts()[2:]) == list(range(54, 60))


def test_a_ring_that_keeps_refuses_when_it_is_full(lib: ct.CDLL) -> None:
    ring = in_ram(lib, 3, policy=KEEP)
    for k in range(3):
        ring.add(k)
    with pytest.raises(ValueError, match=str(NOMEM)):
        ring.put(9, 9, 9)
    assert ring.firsts() == [0, 1, 2]


def test_a_reservoir_gives_each_sample_the_same_chance(lib: ct.CDLL) -> None:
    """10 of 40 stay. Over 600 rings each is there 150 times, standard deviation 10.6: five of these as the bound."""
    stayed: Counter[float] = Counter()
    for seed in range(600):
        ring = in_ram(lib, 10, policy=RESERVOIR, seed=2654435761 * (seed + 1) & 0xFFFFFFFF)
        for k in range(40):
            ring.add(k)
        assert ring.data.count == 10
        stayed.update(ring.firsts())
    assert stayed.total() == 6000
    assert all(abs(stayed[k] - 150) < 53 for k in range(40)), stayed


@pytest.mark.parametrize(("form", "low", "high"), [(I16, -32768, 32767), (BYTE, 0, 255)])
def test_numbers_are_kept_to_the_nearest_step_and_held_to_their_range(
    form: int, low: int, high: int, lib: ct.CDLL
) -> None:
    scale, offset = np.float32(0.01), np.float32(-1)
    ring = in_ram(lib, 40, form=form, scale=scale, offset=offset)
    x = np.random.default_rng(0).uniform(-3, 3, (40, 3)).astype(np.float32)
    x[0] = 1e9, -1e9, 0
    for row in x:
        assert ring.label(ring.put(*row), 1) == OK
    found = np.array([row for row, _ in ring.samples()], np.float32)
    clipped = np.clip(x, offset + scale * np.float32(low), offset + scale * np.float32(high))
    assert np.abs(found - clipped).max() <= 0.00501
    steps = (found - offset) / scale
    assert np.abs(steps - np.rint(steps)).max() < 0.05


def test_what_is_no_number_is_not_taken(lib: ct.CDLL) -> None:
    ring = in_ram(lib, 3)
    for bad in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match=str(NONFINITE)):
            ring.put(0, bad, 0)
    assert ring.waiting == 0


@pytest.mark.parametrize(
    "terms",
    [{"floats": 0}, {"form": 3}, {"policy": 3}, {"classes": 0}, {"dev_most": 4}, {"form": BYTE, "scale": 0.0}],
    ids=str,
)
def test_a_configuration_that_cannot_be_is_refused(terms: dict[str, Any], lib: ct.CDLL) -> None:
    whole = in_ram(lib, 4)
    assert whole.status == OK
    assert Ring(lib, whole._store, **terms).status == ARG


def test_a_reservoir_in_flash_is_refused(lib: ct.CDLL) -> None:
    assert Ring(lib, Flash(lib, 2, 4).store, policy=RESERVOIR).status == ARG


def test_in_flash_the_oldest_sector_goes_and_samples_outlive_a_reset(lib: ct.CDLL) -> None:
    flash = Flash(lib, 3, 4)
    ring = Ring(lib, flash.store)
    for k in range(30):
        ring.add(k, k % 5)
        if k % 7 == 0:
            before = sorted(ring.samples())
            ring = Ring(lib, flash.store)
            assert ring.status == OK
            assert sorted(ring.samples()) == before
    assert sorted(ring.firsts()) == list(range(20, 30))
    assert flash.erased == 8  # 30 samples, four to a sector


def test_in_flash_a_sample_waits_for_its_label_over_a_reset(lib: ct.CDLL) -> None:
    flash = Flash(lib, 2, 4)
    ticket = Ring(lib, flash.store).put(7, 8, 9)
    again = Ring(lib, flash.store)
    assert (again.data.count, again.waiting) == (0, 1)
    assert again.label(ticket, 2) == OK
    assert Ring(lib, flash.store).samples() == [((7, 8, 9), 2)]
    assert Ring(lib, flash.store).put(1, 1, 1) == ticket + 1


def test_in_flash_the_development_set_comes_from_one_sector_which_stays(lib: ct.CDLL) -> None:
    flash = Flash(lib, 3, 4)
    ring = Ring(lib, flash.store, dev_every=2, dev_most=4)
    for k in range(1, 40):
        ring.add(k)
    assert ring.data.dev_count == 2
    assert ring.firsts()[:2] == [2, 4]
    ring = Ring(lib, flash.store, dev_every=2, dev_most=4)
    assert ring.firsts()[:2] == [2, 4]
    assert 39 in ring.firsts()


def test_power_lost_at_every_operation_of_a_capture_costs_at_most_the_sample_that_was_under_way(
    lib: ct.CDLL, outcome: Outcome
) -> None:
    """Seven samples of three sectors of two: erasures, numbers, labels."""
    tried = 0
    while True:
        flash = Flash(lib, 3, 2)
        ring = Ring(lib, flash.store)
        flash.power, flash.done, safe = tried, 0, []
        failed = False
        for k in range(7):
            try:
                ticket = ring.put(k, k, k)
            except ValueError:
                failed = True
                break
            if ring.label(ticket, k % 5):
                failed = True
                break
            safe.append(k)
        flash.power = None
        again = Ring(lib, flash.store)
        assert again.status == OK
        found = again.samples()
        assert all(x == (x[0],) * 3 and label == x[0] % 5 for x, label in found), "old or new, never mixed"
        kept = sorted(x[0] for x, _ in found)
        newest = [k for k in safe if k >= len(safe) - 4 + (2 if failed else 0)]
        assert set(newest) <= set(kept) <= {*safe, len(safe)}
        again.add(8, 3)
        assert ((8, 0, 0), 3) in again.samples()
        if not failed:
            break
        tried += 1
    print(f"capture: power lost at {tried} operations")
    outcome(
        "power lost at every flash operation",
        end="node",
        tried=tried,
        what="cuts, at each word and erasure of captured samples",
        result="the old state or the new one",
    )


@pytest.mark.parametrize(("length", "hop"), [(8, 8), (8, 4), (8, 3), (5, 7)])
def test_windows_overlap_and_have_the_oldest_reading_first(length: int, hop: int, lib: ct.CDLL) -> None:
    channels, window = 3, ct.create_string_buffer(64)
    memory, x = (ct.c_float * (channels * length))(), (ct.c_float * (channels * length))()
    lib.ft_window_push.restype = ct.c_bool
    lib.ft_window_start(window, memory, channels, length, hop)
    readings = np.arange(60 * channels, dtype=np.float32).reshape(60, channels)
    ends = []
    for number, reading in enumerate(readings, 1):
        if lib.ft_window_push(window, reading.ctypes.data_as(PTR)):
            ends.append(number)
            lib.ft_window_read(window, x)
            expected = readings[number - length : number].T
            np.testing.assert_array_equal(np.array(x).reshape(channels, length), expected)
    assert ends == list(range(length, 61, hop))
