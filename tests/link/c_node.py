"""The node in C (firmware/src/wire) in this process, with the same handles as the node of node.py."""

from __future__ import annotations

import ctypes as ct
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from fedtiny.link.frames import FrameType, Noise, Splitter
from fedtiny.link.messages import ObjectKind, Task, TaskKind
from fedtiny.link.objects import Payload
from fedtiny_export.core import library_path

from .node import Work, echo
from .storage import Flash

RECORD, KEY, HASH, OBJECTS, NUMBERS, RESULTS = 72, 32, 16, 4, 128, 80
WIRE_BYTES = 6144  # at least sizeof(ft_wire) with 64-bit pointers
SAVER_BYTES = 512  # at least sizeof(ft_saver) with 64-bit pointers
GUARD = b"\xa5" * 64
FOREVER = 0x7FFFFFFF
U8, U16, U32, PTR = ct.c_uint8, ct.c_uint16, ct.c_uint32, ct.c_void_p

NOW = ct.CFUNCTYPE(U32, PTR)
WRITE = ct.CFUNCTYPE(ct.c_size_t, PTR, ct.POINTER(U8), ct.c_size_t)
RANDOM = ct.CFUNCTYPE(None, PTR, ct.POINTER(U8), ct.c_size_t)
LOAD = ct.CFUNCTYPE(ct.c_int, PTR, ct.POINTER(U8))
STORE = ct.CFUNCTYPE(ct.c_int, PTR, ct.POINTER(U8))


class _Port(ct.Structure):
    _fields_ = [
        ("ctx", PTR), ("now_ms", NOW), ("write", WRITE), ("random", RANDOM), ("load", LOAD), ("store", STORE),
    ]  # fmt: skip


class _Facts(ct.Structure):
    _fields_ = [
        ("device", ct.c_char_p),
        ("board", ct.c_char_p),
        ("firmware", U8 * 8),
        ("reset_reason", U8),
        ("frames", ct.c_bool),
        ("plain", ct.c_bool),
        ("window", U8),
        ("bytes_per_s", U32),
        ("exchange", PTR),
    ]


class _Ref(ct.Structure):
    _fields_ = [("kind", U8), ("hash", U8 * HASH), ("length", U32)]


class _Object(ct.Structure):
    _fields_ = [("ref", _Ref), ("at", PTR), ("block_bytes", U16), ("base", U32)]


class _Task(ct.Structure):
    _fields_ = [
        ("number", U32),
        ("round", U32),
        ("run", U8 * 8),
        *((name, U8) for name in ("attempt", "kind", "object_count", "parameter_bytes")),
        ("parameters", U8 * NUMBERS),
        ("objects", _Object * OBJECTS),
    ]


class _Source(ct.Structure):
    _fields_ = [("ref", _Ref), ("form", U8), ("at", PTR), ("count", U32)]


class _Reply(ct.Structure):
    _fields_ = [
        ("status", U8),
        ("object_count", U8),
        ("result_bytes", U8),
        ("results", U8 * RESULTS),
        ("problem", PTR),
        ("numbers", U32 * 2),
        ("objects", _Source * OBJECTS),
    ]


class _Counts(ct.Structure):
    _fields_ = [("dropped", U32), ("asked_again", U32), ("tasks", U32), ("busy_ms", U32)]


PLACE = ct.CFUNCTYPE(PTR, PTR, ct.POINTER(_Task), U32, ct.POINTER(ct.c_bool), ct.POINTER(_Reply))
WORK = ct.CFUNCTYPE(None, PTR, ct.POINTER(_Task), ct.POINTER(_Counts), U32, ct.POINTER(_Reply))
ROOM = ct.CFUNCTYPE(None, PTR, ct.POINTER(U32), ct.POINTER(U32))


class _Tasks(ct.Structure):
    _fields_ = [("ctx", PTR), ("place", PLACE), ("work", WORK), ("room", ROOM)]


class _Head(ct.Structure):
    """The first fields of ft_wire."""

    _fields_ = [("port", PTR), ("facts", PTR), ("tasks", _Tasks), ("counts", _Counts)]


class _Bank(ct.Structure):
    _fields_ = [("at", PTR), ("bytes", U32)]


class _Service(ct.Structure):
    _fields_ = [
        ("memory", PTR),
        ("bytes", U32),
        ("own", PTR),
        ("load", PTR),
        ("banks", PTR),
        ("bank_count", U32),
        ("node", PTR),
        *((name, U32) for name in ("model_bytes", "arena_at", "samples_at")),
        *((name, U32) for name in ("samples", "samples_in_all", "dev_samples", "floats", "peak")),
        ("model", U8 * HASH),
        ("stored", PTR),
    ]


@cache
def library() -> ct.CDLL:
    lib = ct.CDLL(str(library_path()))
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "ft_wire_start": (ct.c_int, [PTR, ct.POINTER(_Port), ct.POINTER(_Facts), _Tasks]),
        "ft_wire_feed": (None, [PTR, ct.c_char_p, ct.c_size_t]),
        "ft_wire_poll": (U32, [PTR]),
        "ft_wire_sending": (ct.c_bool, [PTR]),
        "ft_wire_log": (None, [PTR, ct.c_char_p]),
        "ft_wire_device": (ct.c_char_p, [PTR]),
        "ft_wire_integer": (ct.c_bool, [ct.POINTER(_Task), ct.POINTER(U32), ct.POINTER(U32)]),
        "ft_wire_float": (ct.c_bool, [ct.POINTER(_Task), ct.POINTER(U32), ct.POINTER(ct.c_float)]),
        "ft_wire_add_integer": (None, [ct.POINTER(_Reply), U32]),
        "ft_wire_add_double": (None, [ct.POINTER(_Reply), ct.c_double]),
        "ft_service_start": (None, [ct.POINTER(_Service), PTR, U32, PTR]),
        "ft_service_banks": (ct.c_int, [ct.POINTER(_Service), ct.POINTER(_Bank), U32]),
        "ft_service_store_samples": (ct.c_bool, [ct.POINTER(_Service), PTR]),
        "ft_service_tasks": (_Tasks, [ct.POINTER(_Service)]),
        "ft_saver_start": (ct.c_bool, [PTR, ct.POINTER(_Service), PTR, PTR]),
        "ft_saver_tasks": (_Tasks, [PTR]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def make_record(device: str, key: bytes | None, boot: int) -> bytes:
    """The record of fedtiny_wire.h, as it lay there before the boot that makes the counter `boot`."""
    name = device.encode()
    head = bytes((1, key is not None, len(name), 0)) + (boot - 1).to_bytes(4, "little")
    return head + (key or bytes(KEY)) + name.ljust(32, b"\0")


class CNode:
    """`work` as in node.py, or the service on `memory` bytes, and banks beside it, where it is None.

    `storage`: for samples; `areas`: the ft_storage for models.
    """

    def __init__(
        self,
        device: str = "n1",
        key: bytes | None = bytes(range(32)),
        work: Work | None = echo,
        *,
        boot: int = 1,
        stream: bool = True,
        window: int = 64,
        plain: bool = False,
        bytes_per_s: float = 0.0,
        memory: int = 1 << 20,
        banks: Sequence[int] = (),
        random: bool = True,
        record: bytes | None = None,
        storage_fails: bool = False,
        areas: Any = None,
        storage: Flash | None = None,
    ) -> None:
        self.stream = stream
        self.done: list[int] = []
        self.received_blocks = 0
        self.record = make_record(device, key, boot) if record is None else record
        self.storage_fails = storage_fails
        self._work = work
        self._now = 0.0
        self._out: bytes | None = None
        self._room_for = 0  # frames that the line takes now
        self._deadline: float | None = 0.0
        self._splitter = Splitter()
        self._places: dict[bytes, ct.Array[ct.c_char]] = {}
        self._gifts: list[bytes] = []
        lib = library()
        exchange = ct.addressof(ct.c_char.in_dll(lib, "ft_wire_x25519")) if random else None
        self._facts = _Facts(device=device.encode(), board=b"test", reset_reason=1, frames=not stream, plain=plain,
                             window=window, bytes_per_s=int(bytes_per_s), exchange=exchange)  # fmt: skip
        draw = RANDOM(lambda _, to, count: ct.memmove(to, os.urandom(count), count) and None) if random else RANDOM()
        self._port = _Port(
            None, NOW(lambda _: self._now_ms), WRITE(self._write), draw, LOAD(self._load), STORE(self._store)
        )
        self._state = ct.create_string_buffer(bytes(WIRE_BYTES) + GUARD)
        if work is None:
            self._memory = (ct.c_uint64 * (memory // 8))()
            self._service = _Service()
            lib.ft_service_start(self._service, self._memory, memory, None)
            if banks:
                assert self.add_banks(*banks) == 0
            if storage is not None:
                self._storage = storage
                lib.ft_service_store_samples(self._service, ct.byref(storage.table))
            self._tasks = lib.ft_service_tasks(self._service)
        else:
            self._tasks = _Tasks(None, PLACE(self._place), WORK(self._do), ROOM(self._room))
        self.status = lib.ft_wire_start(self._state, self._port, self._facts, self._tasks)
        if areas is not None:
            self._saver = ct.create_string_buffer(SAVER_BYTES)
            lib.ft_saver_start(self._saver, self._service, self._state, ct.byref(areas))
        self._lib = lib

    def add_banks(self, *sizes: int) -> int:
        """The status of ft_service_banks."""
        self._pieces = [(ct.c_uint64 * (size // 8))() for size in sizes]
        self._banks = (_Bank * len(sizes))(*((ct.addressof(p), ct.sizeof(p)) for p in self._pieces))
        return int(library().ft_service_banks(self._service, self._banks, len(sizes)))

    # -- what node.py has

    @property
    def key(self) -> bytes | None:
        return self.record[8 : 8 + KEY] if self.record[1] else None

    @property
    def device(self) -> str:
        return str(self._lib.ft_wire_device(self._state).decode())

    @property
    def counts(self) -> _Counts:
        return _Head.from_buffer(self._state).counts

    def feed(self, data: bytes, now: float) -> None:
        self._now = now
        frames = [data]
        if self.stream:
            frames = [piece.frame for piece in self._splitter.feed(data) if not isinstance(piece, Noise)]
        self.received_blocks += sum(frame[1] == FrameType.DATA for frame in frames if len(frame) > 1)
        self._lib.ft_wire_feed(self._state, data, len(data))

    def outgoing(self, now: float) -> bytes | None:
        self._out, self._room_for = None, 1
        self._poll(now)
        return self._out

    def tick(self, now: float) -> None:
        self._room_for = 0
        self._poll(now)

    def _poll(self, now: float) -> None:
        self._now = now
        wait = self._lib.ft_wire_poll(self._state)
        self._deadline = (self._now_ms + wait) / 1000 if wait < FOREVER else None
        assert self._state.raw[WIRE_BYTES : WIRE_BYTES + len(GUARD)] == GUARD

    def next_deadline(self) -> float | None:
        return self._deadline

    def log(self, text: str) -> None:
        self._logged = text.encode()
        self._lib.ft_wire_log(self._state, self._logged)

    @staticmethod
    def halves(numbers: Any) -> bytes:
        """What follows the head of an object of these float32s when it goes as halves."""
        source, out = (
            _Source(_Ref(3), 2, numbers.ctypes.data, numbers.size),
            ct.create_string_buffer(4 + 2 * numbers.size),
        )
        library().ft_object_read(ct.byref(source), 0, out, len(out))
        return out.raw[4:]

    # -- callbacks

    @property
    def _now_ms(self) -> int:
        return int(self._now * 1000 + 1e-6)

    def _write(self, _: None, data: Any, count: int) -> int:
        if not self._room_for:
            return 0
        self._room_for = 0
        self._out = ct.string_at(data, count)
        return count

    def _load(self, _: None, to: Any) -> int:
        if not self.record:
            return 1
        ct.memmove(to, self.record, RECORD)
        return 0

    def _store(self, _: None, data: Any) -> int:
        if self.storage_fails:
            return 1
        self.record = ct.string_at(data, RECORD)
        return 0

    def _room(self, _: None, arena: Any, free: Any) -> None:
        arena[0] = free[0] = 1 << 20

    def _place(self, _: None, task: Any, i: int, have: Any, reply: Any) -> int:
        ref = task[0].objects[i].ref
        place = self._places.setdefault(bytes(ref.hash), ct.create_string_buffer(max(ref.length, 1)))
        return ct.addressof(place)

    def _do(self, _: None, task: Any, counts: Any, boots: int, reply: Any) -> None:
        found = task[0]
        objects = tuple(
            Payload(ObjectKind(o.ref.kind), ct.string_at(o.at, o.ref.length))
            for o in found.objects[: found.object_count]
        )
        message = Task(
            found.number, bytes(found.run), found.round, found.attempt, TaskKind(found.kind),
            self._parameters(task), tuple(payload.ref for payload in objects) or None,
        )  # fmt: skip
        self.done.append(found.number)
        assert self._work is not None
        status, results, gifts = self._work(message, objects)
        reply[0].status = status
        for number in results:
            if isinstance(number, float):
                self._lib.ft_wire_add_double(reply, number)
            else:
                self._lib.ft_wire_add_integer(reply, number)
        self._gifts = [payload.data for payload in gifts]
        self._places.clear()
        for i, payload in enumerate(gifts):
            at = ct.cast(ct.c_char_p(self._gifts[i]), PTR).value
            reply[0].objects[i] = _Source(_Ref(payload.kind), 0, at, len(payload.data))
        reply[0].object_count = len(gifts)

    def _parameters(self, task: Any) -> tuple[int | float, ...]:
        at, integer, real = U32(0), U32(), ct.c_float()
        numbers: list[int | float] = []
        while True:
            if self._lib.ft_wire_integer(task, at, integer):
                numbers.append(integer.value)
            elif self._lib.ft_wire_float(task, at, real):
                numbers.append(real.value)
            else:
                return tuple(numbers)
