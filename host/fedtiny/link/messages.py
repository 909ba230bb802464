"""The messages of firmware/fedtiny.cddl as frozen dataclasses, and their one encoding in CBOR.

A field's position is its key. The encoding is the deterministic one (RFC 8949, section 4.2.1). A decoder takes exactly
the bytes that its encoder would write, so unknown and doubled keys, wrong types, integers longer than they need be, and
bytes after the message are all refused, by `MessageError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, TypeVar

import cbor2

from fedtiny_export.errors import MessageError

MAX_MESSAGE_BYTES = 4096


class Profile(IntEnum):
    """How a session is protected."""

    PLAIN = 0
    PSK = 1
    PSK_FS = 2

    @property
    def word(self) -> str:
        return self.name.lower().replace("_", "-")


class Reason(IntEnum):
    """Why a node will have no session."""

    VERSION = 1
    INCOMPAT_BITS = 2
    PROFILE = 3
    KEY = 4
    NOT_ENROLLED = 5
    BUSY = 6


class ObjectKind(IntEnum):
    MODEL = 1
    MASKS = 2
    VALUES = 3
    STATISTICS = 4
    MOMENTS = 5
    CANDIDATES = 6
    TOPK = 7
    SAMPLES = 8
    LOGITS = 9
    SCORES = 10


class TaskKind(IntEnum):
    DESCRIBE = 1
    PUT_DATA = 2
    LOAD = 3
    INSTALL = 4
    MEASURE_BN = 5
    EVALUATE = 6
    TRAIN = 7
    SCORE = 8
    INFER = 9
    REPORT = 10
    FORGET = 11


class ResetReason(IntEnum):
    UNKNOWN = 0
    POWER = 1
    PIN = 2
    WATCHDOG = 3
    SOFTWARE = 4
    BROWN_OUT = 5
    FAULT = 6


@dataclass(frozen=True)
class _Float32:
    """Written with 32 bits whatever its value."""

    value: float


@dataclass(frozen=True)
class _Float64:
    """Written with 64 bits whatever its value."""

    value: float


def _write_float(encoder: Any, number: Any) -> None:
    width = {_Float32: (">Bf", 0xFA), _Float64: (">Bd", 0xFB)}[type(number)]
    encoder.write(struct.pack(*width, number.value))


@dataclass(frozen=True)
class _Type:
    """One CDDL type, to and from what cbor2 reads and writes; MessageError on a value outside of it."""

    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


def _check(good: bool, what: str) -> None:
    if not good:
        raise MessageError(f"not {what}")


def _uint(bits: int) -> _Type:
    def same(value: Any) -> Any:
        _check(type(value) is int and 0 <= value < 1 << bits, f"an unsigned integer of {bits} bits")
        return value

    return _Type(same, same)


def _octets(count: int) -> _Type:
    def same(value: Any) -> Any:
        _check(type(value) is bytes and len(value) == count, f"{count} bytes")
        return value

    return _Type(same, same)


def _text(shortest: int, longest: int) -> _Type:
    """Lengths are those of the UTF-8, as in CDDL."""

    def same(value: Any) -> Any:
        _check(type(value) is str, "a text")
        try:
            count = len(value.encode())
        except UnicodeEncodeError:
            raise MessageError("not a text of UTF-8") from None
        _check(shortest <= count <= longest, f"a text of {shortest} to {longest} bytes")
        return value

    return _Type(same, same)


def _one_of(kinds: type[IntEnum]) -> _Type:
    values = {int(kind) for kind in kinds}

    def unpack(value: Any) -> Any:
        _check(type(value) is int and value in values, f"a {kinds.__name__}")
        return kinds(value)

    return _Type(lambda value: int(unpack(int(value))), unpack)


def _numbers(real: type[_Float32] | type[_Float64]) -> _Type:
    """Integers of up to 64 bits and floats, as a tuple."""

    def packed(value: Any) -> Any:
        if isinstance(value, float):
            return real(value)
        _check(type(value) is int and -(1 << 63) <= value < 1 << 64, "an integer of 64 bits or a float")
        return value

    def unpack(value: Any) -> Any:
        _check(type(value) is list, "a list of numbers")
        for number in value:
            packed(number)
        return tuple(value)

    return _Type(lambda value: [packed(number) for number in value], unpack)


def _objects() -> _Type:
    parts = (_one_of(ObjectKind), _octets(16), _uint(32))

    def pack(value: Any) -> Any:
        _check(1 <= len(value) <= 4, "one to four objects")
        return [[part.pack(x) for part, x in zip(parts, (o.kind, o.hash, o.length), strict=True)] for o in value]

    def unpack(value: Any) -> Any:
        _check(type(value) is list and 1 <= len(value) <= 4, "one to four objects")
        for item in value:
            _check(type(item) is list and len(item) == len(parts), "an object")
        return tuple(ObjectRef(*(part.unpack(x) for part, x in zip(parts, item, strict=True))) for item in value)

    return _Type(pack, unpack)


def _is(kind: _Type) -> Any:
    return field(metadata={"type": kind})


def _may_be(kind: _Type) -> Any:
    return field(default=None, metadata={"type": kind})


U8, U16, U32, U64 = _uint(8), _uint(16), _uint(32), _uint(64)
DEVICE, BOARD = _text(1, 31), _text(0, 31)
PROFILE, REASON, TASK_KIND = _one_of(Profile), _one_of(Reason), _one_of(TaskKind)


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object by its name: `hash` is 16 bytes, `length` counts bytes."""

    kind: ObjectKind
    hash: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Invite:
    lowest: int = _is(U8)
    highest: int = _is(U8)
    nonce: bytes = _is(_octets(16))
    profile: Profile = _is(PROFILE)  # noqa: RUF009
    incompat: int = _is(U32)
    compat: int = _is(U32)
    max_payload: int = _is(U16)
    device: str | None = _may_be(DEVICE)
    public_key: bytes | None = _may_be(_octets(32))


@dataclass(frozen=True, slots=True)
class Hello:
    """What a node says of itself; sizes in bytes, `operators` a bit per kind of firmware/BLOB.md."""

    version: int = _is(U8)
    nonce: bytes = _is(_octets(16))
    device: str = _is(DEVICE)
    profile: Profile = _is(PROFILE)  # noqa: RUF009
    incompat: int = _is(U32)
    compat: int = _is(U32)
    max_payload: int = _is(U16)
    max_object: int = _is(U32)
    boot_counter: int = _is(U32)
    reset_reason: int = _is(U8)
    board: str = _is(BOARD)
    firmware: bytes = _is(_octets(8))
    operators: int = _is(U32)
    arena_bytes: int = _is(U32)
    free_ram: int = _is(U32)
    public_key: bytes | None = _may_be(_octets(32))


@dataclass(frozen=True, slots=True)
class Welcome:
    session: int = _is(U16)


@dataclass(frozen=True, slots=True)
class Refuse:
    reason: Reason = _is(REASON)  # noqa: RUF009
    device: str = _is(DEVICE)
    lowest: int | None = _may_be(U8)
    highest: int | None = _may_be(U8)
    unknown: int | None = _may_be(U32)


@dataclass(frozen=True, slots=True)
class Announce:
    device: str = _is(DEVICE)
    board: str = _is(BOARD)
    boot_counter: int = _is(U32)


@dataclass(frozen=True, slots=True)
class Enrol:
    device: str = _is(DEVICE)
    key: bytes = _is(_octets(32))


@dataclass(frozen=True, slots=True)
class Enrolled:
    device: str = _is(DEVICE)
    check: bytes = _is(_octets(8))


@dataclass(frozen=True, slots=True)
class Task:
    number: int = _is(U32)
    run: bytes = _is(_octets(8))
    round: int = _is(U32)
    attempt: int = _is(U8)
    kind: TaskKind = _is(TASK_KIND)  # noqa: RUF009
    parameters: tuple[int | float, ...] | None = _may_be(_numbers(_Float32))
    objects: tuple[ObjectRef, ...] | None = _may_be(_objects())


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` is the core's ft_status; `problem` says in words what went wrong."""

    number: int = _is(U32)
    run: bytes = _is(_octets(8))
    round: int = _is(U32)
    attempt: int = _is(U8)
    status: int = _is(U8)
    results: tuple[int | float, ...] | None = _may_be(_numbers(_Float64))
    objects: tuple[ObjectRef, ...] | None = _may_be(_objects())
    problem: str | None = _may_be(_text(0, 95))


@dataclass(frozen=True, slots=True)
class Request:
    """Bit i of `wanted`: block `first` + i."""

    hash: bytes = _is(_octets(16))
    first: int = _is(U32)
    wanted: int = _is(U64)


@dataclass(frozen=True, slots=True)
class Ack:
    number: int = _is(U32)


Message = Invite | Hello | Welcome | Refuse | Announce | Enrol | Enrolled | Task | Reply | Request | Ack
MESSAGES: tuple[type[Message], ...] = (
    Invite, Hello, Welcome, Refuse, Announce, Enrol, Enrolled, Task, Reply, Request, Ack,
)  # fmt: skip
M = TypeVar("M", bound=Message)


# Key, name, type, and whether the field must be there.
_SCHEMAS: Mapping[type, tuple[tuple[int, str, _Type, bool], ...]] = {
    kind: tuple(
        (key, item.name, item.metadata["type"], item.default is not None) for key, item in enumerate(fields(kind))
    )
    for kind in MESSAGES
}


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises MessageError if a field is outside of its type."""
    packed = {}
    for key, name, kind, needed in _SCHEMAS[type(message)]:
        value = getattr(message, name)
        if value is None and not needed:
            continue
        try:
            packed[key] = kind.pack(value)
        except (MessageError, TypeError, ValueError) as error:
            raise MessageError(f"{type(message).__name__}.{name} = {value!r}: {error}") from None
    try:
        return cbor2.dumps(packed, default=_write_float)
    except OverflowError:
        raise MessageError(f"{message!r}: a number that does not fit a 32-bit float") from None


def decode(kind: type[M], data: bytes) -> M:
    """A message of this kind from its bytes. Raises MessageError on anything that `encode` would not have written."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"a message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
    try:
        packed = cbor2.loads(data)
    except Exception as error:  # a tag may bring any exception of the type that it names
        raise MessageError(f"no CBOR: {error}") from None
    message = _unpack(kind, packed)
    if encode(message) != data:
        raise MessageError(f"{kind.__name__}: not in the one encoding of this message")
    return message


def decode_first(kind: type[M], data: bytes, rest: int) -> tuple[M, bytes]:
    """A message and the `rest` bytes (a MAC) that follow it."""
    if len(data) < rest:
        raise MessageError(f"{kind.__name__}: {len(data)} bytes are too few")
    end = len(data) - rest
    return decode(kind, data[:end]), data[end:]


def _unpack(kind: type[M], packed: Any) -> M:
    if type(packed) is not dict:
        raise MessageError(f"{kind.__name__}: no map")
    values = {}
    for key, name, wanted, needed in _SCHEMAS[kind]:
        if key in packed:
            try:
                values[name] = wanted.unpack(packed[key])
            except (MessageError, TypeError, ValueError) as error:
                raise MessageError(f"{kind.__name__}.{name}: {error}") from None
        elif needed:
            raise MessageError(f"{kind.__name__}: {name} is missing")
    if len(values) != len(packed):
        raise MessageError(f"{kind.__name__}: unknown keys")
    return kind(**values)
