"""Frames of firmware/PROTOCOL.md: header, CRC-32 or ChaCha20-Poly1305, window against replays, COBS on streams."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from cobs import cobs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedtiny_export.errors import MessageError

VERSION = 1
HEADER = struct.Struct("<BBHI")
CRC_BYTES, TAG_BYTES = 4, 16
MIN_PAYLOAD, FIRST_PAYLOAD, MAX_PAYLOAD = 64, 1024, 4096
LAST_COUNTER = (1 << 32) - 1
WINDOW = 64
_FROM_HOST, _PROTECTED, _KNOWN_FLAGS = 1, 2, 3


class FrameType(IntEnum):
    INVITE = 1
    HELLO = 2
    WELCOME = 3
    READY = 4
    REFUSE = 5
    ANNOUNCE = 6
    ENROL = 7
    ENROLLED = 8
    TASK = 16
    REPLY = 17
    REQUEST = 18
    DATA = 19
    ACK = 20
    LOG = 21
    BYE = 22


OUTSIDE_OF_SESSIONS = frozenset(
    (
        FrameType.INVITE, FrameType.HELLO, FrameType.WELCOME, FrameType.REFUSE,
        FrameType.ANNOUNCE, FrameType.ENROL, FrameType.ENROLLED,
    )
)  # fmt: skip
_TYPES = {int(kind): kind for kind in FrameType}


class FrameError(MessageError):
    """A frame that is dropped; `cause` is the word under which it is counted."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(f"dropped frame: {cause}")


@dataclass(frozen=True, slots=True)
class Frame:
    type: FrameType
    session: int
    counter: int
    payload: bytes


def seal_open(kind: FrameType, payload: bytes, *, from_host: bool, session: int = 0, counter: int = 0) -> bytes:
    """A frame that anybody can read and write, with its CRC-32."""
    body = HEADER.pack(VERSION << 4 | (_FROM_HOST if from_host else 0), kind, session, counter) + payload
    return body + zlib.crc32(body).to_bytes(4, "little")


def seal(
    kind: FrameType, payload: bytes, *, from_host: bool, session: int, counter: int, cipher: ChaCha20Poly1305
) -> bytes:
    """An encrypted frame with its tag."""
    flags = VERSION << 4 | _PROTECTED | (_FROM_HOST if from_host else 0)
    header = HEADER.pack(flags, kind, session, counter)
    return header + cipher.encrypt(header + bytes(4), payload, header)


def unseal(frame: bytes, *, from_host: bool, session: int, cipher: ChaCha20Poly1305 | None) -> Frame:
    """The frame in these bytes, if it comes from that end and is genuine; replays are for `ReplayWindow`.

    `session` and `cipher` are those of the running session: 0 and None outside of one, None in the profile `plain`.
    Frames that stand outside of sessions are always read. Raises FrameError.
    """
    if len(frame) < HEADER.size + CRC_BYTES:
        raise FrameError("short")
    flags, number, of_session, counter = HEADER.unpack_from(frame)
    if flags >> 4 != VERSION:
        raise FrameError("version")
    if flags & 15 & ~_KNOWN_FLAGS:
        raise FrameError("flags")
    if bool(flags & _FROM_HOST) != from_host:
        raise FrameError("direction")
    payload = _payload(frame, protected=bool(flags & _PROTECTED), session=session, of_session=of_session, cipher=cipher)
    kind = _TYPES.get(number)
    if kind is None:
        raise FrameError("type")
    outside = kind in OUTSIDE_OF_SESSIONS
    if outside != (of_session == 0) or (outside and (counter or flags & _PROTECTED)):
        raise FrameError("session")
    return Frame(kind, of_session, counter, payload)


def _payload(frame: bytes, *, protected: bool, session: int, of_session: int, cipher: ChaCha20Poly1305 | None) -> bytes:
    if of_session not in (0, session):
        raise FrameError("session")
    if protected:
        if cipher is None or of_session == 0:
            raise FrameError("session")
        header = frame[: HEADER.size]
        try:
            return cipher.decrypt(header + bytes(4), frame[HEADER.size :], header)
        except InvalidTag:
            raise FrameError("tag") from None
    if of_session and cipher is not None:
        raise FrameError("unprotected")
    if zlib.crc32(frame[:-CRC_BYTES]) != int.from_bytes(frame[-CRC_BYTES:], "little"):
        raise FrameError("crc")
    return frame[HEADER.size : -CRC_BYTES]


class ReplayWindow:
    """Takes each counter once, and none more than 63 below the highest (RFC 4303, section 3.4.3)."""

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0  # bit i: highest - i

    def take(self, counter: int) -> bool:
        """Whether this counter is new; only for frames that are genuine."""
        ahead = counter - self._highest
        if ahead > 0:
            self._seen = (self._seen << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
            self._highest = counter
            return True
        if ahead <= -WINDOW or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True


def stuff(frame: bytes) -> bytes:
    """A frame as it goes over a byte stream: COBS (Cheshire and Baker 1999), then 0x00."""
    return bytes(cobs.encode(frame)) + b"\0"


@dataclass(frozen=True, slots=True)
class Noise:
    """Bytes between zeros that form no frame: a boot ROM's greeting, a damaged line."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A frame that came over a byte stream, and how many bytes it took there with its closing zero."""

    frame: bytes
    stream_bytes: int


class Splitter:
    """Cuts a byte stream into frames and noise; keeps at most one frame of the largest size."""

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        longest = HEADER.size + max_payload + TAG_BYTES
        self._limit = longest + longest // 254 + 1
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Found | Noise]:
        """What is complete now: undamaged COBS with a header of our version, or noise."""
        pieces = data.split(b"\0")
        for piece in pieces[:-1]:
            self._held += piece
            if self._held:
                whole, self._held = bytes(self._held), bytearray()
                yield self._frame(whole)
        self._held += pieces[-1]
        if len(self._held) > self._limit:
            whole, self._held = bytes(self._held), bytearray()
            for start in range(0, len(whole), self._limit):
                yield Noise(whole[start : start + self._limit])

    def rest(self) -> Noise | None:
        """What came since the last zero; no frame will come of it any more."""
        held, self._held = bytes(self._held), bytearray()
        return Noise(held) if held else None

    def _frame(self, stuffed: bytes) -> Found | Noise:
        if len(stuffed) > self._limit:
            return Noise(stuffed)
        try:
            frame = bytes(cobs.decode(stuffed))
        except cobs.DecodeError:
            return Noise(stuffed)
        if len(frame) < HEADER.size + CRC_BYTES or (frame[0] & 0xFC) != VERSION << 4:
            return Noise(stuffed)
        return Found(frame, len(stuffed) + 1)
