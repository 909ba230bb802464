"""Frames: the stuffing and checksum that others define, and nothing but the genuine frame, once."""

from __future__ import annotations

import random
import zlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedtiny.link import frames
from fedtiny.link.frames import FrameError, FrameType, Noise, ReplayWindow, Splitter, seal, seal_open, stuff, unseal

from ..conftest import Outcome

KEY = bytes(range(32))
CIPHER = ChaCha20Poly1305(KEY)
SESSION = 0x1234


def sealed(
    payload: bytes = b"hello", *, kind: FrameType = FrameType.TASK, counter: int = 7, session: int = SESSION
) -> bytes:
    return seal(kind, payload, from_host=True, session=session, counter=counter, cipher=CIPHER)


def plain(payload: bytes = b"hello", *, counter: int = 7) -> bytes:
    return seal_open(FrameType.TASK, payload, from_host=True, session=SESSION, counter=counter)


def opened(data: bytes, cipher: ChaCha20Poly1305 | None = CIPHER) -> frames.Frame:
    return unseal(data, from_host=True, session=SESSION, cipher=cipher)


@pytest.mark.parametrize(
    ("data", "stuffed"),
    [  # the examples of https://en.wikipedia.org/wiki/Consistent_Overhead_Byte_Stuffing
        ("00", "0101"),
        ("0000", "010101"),
        ("11220033", "0311220233"),
        ("11223344", "0511223344"),
        ("11000000", "0211010101"),
    ],
)
def test_stuffing_gives_the_published_examples(data: str, stuffed: str) -> None:
    assert stuff(bytes.fromhex(data)) == bytes.fromhex(stuffed) + b"\0"


def test_stuffing_of_254_bytes_without_a_zero_is_the_published_example() -> None:
    assert stuff(bytes(range(1, 255))) == b"\xff" + bytes(range(1, 255)) + b"\0"
    assert stuff(bytes(range(256))) == b"\x01\xff" + bytes(range(1, 255)) + b"\x02\xff\0"


def test_the_checksum_is_the_one_of_the_catalogue() -> None:
    assert zlib.crc32(b"123456789") == 0xCBF43926  # CRC-32/ISO-HDLC, check value
    frame = plain()
    assert frame[-4:] == zlib.crc32(frame[:-4]).to_bytes(4, "little")


def test_a_header_is_laid_out_as_written_down() -> None:
    assert sealed(counter=0x01020304)[:8] == bytes((0x13, 16, 0x34, 0x12, 4, 3, 2, 1))
    assert seal_open(FrameType.HELLO, b"", from_host=False)[:8] == bytes((0x10, 2, 0, 0, 0, 0, 0, 0))


def test_a_frame_comes_out_as_it_went_in() -> None:
    assert opened(sealed(b"x" * 1000)) == frames.Frame(FrameType.TASK, SESSION, 7, b"x" * 1000)
    assert opened(plain(b""), None).payload == b""


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (sealed()[:11], "short"),
        (bytes((0x23,)) + sealed()[1:], "version"),
        (bytes((0x17,)) + sealed()[1:], "flags"),
        (seal(FrameType.TASK, b"", from_host=False, session=SESSION, counter=0, cipher=CIPHER), "direction"),
        (sealed(session=SESSION + 1), "session"),
        (sealed(kind=FrameType.INVITE), "session"),
        (seal_open(FrameType.TASK, b"", from_host=True), "session"),
        (seal_open(FrameType.INVITE, b"", from_host=True, counter=1), "session"),
        (plain(), "unprotected"),
        (sealed()[:-1] + b"\0", "tag"),
    ],
)
def test_what_is_wrong_with_a_frame_is_counted_by_its_name(frame: bytes, cause: str) -> None:
    with pytest.raises(FrameError) as caught:
        opened(frame)
    assert caught.value.cause == cause


def test_a_counter_is_taken_once_and_only_within_64_of_the_highest() -> None:
    window = ReplayWindow()
    assert [window.take(c) for c in (0, 1, 1, 0, 70, 7, 6, 7, 69, 70)] == [
        True, True, False, False, True, True, False, False, True, False,
    ]  # fmt: skip
    assert window.take((1 << 32) - 1)
    assert not window.take(71)


def test_a_window_takes_each_shuffled_counter_that_is_not_too_late() -> None:
    rng = random.Random(3)
    window, model, highest = ReplayWindow(), set[int](), -1
    for _ in range(20_000):
        counter = max(0, highest + rng.randint(-80, 20))
        fresh = counter not in model and counter > highest - 64
        assert window.take(counter) == fresh
        model.add(counter)
        highest = max(highest, counter)


def test_noise_between_frames_is_told_apart_and_frames_are_found_in_any_pieces() -> None:
    frame = sealed()
    stream = b"ets Jul 29 2019 12:21:46\r\nrst:0x1\r\n" + b"\0" + stuff(frame) + b"\xff\xfe\0" + stuff(frame)
    for size in (1, 3, 1000):
        splitter = Splitter()
        found = [piece for at in range(0, len(stream), size) for piece in splitter.feed(stream[at : at + size])]
        assert [piece.frame for piece in found if not isinstance(piece, Noise)] == [frame, frame]
        noise = b"".join(piece.data for piece in found if isinstance(piece, Noise))
        assert noise == b"ets Jul 29 2019 12:21:46\r\nrst:0x1\r\n\xff\xfe"


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_a_hundred_thousand_equal_bytes_hide_no_frame_and_pile_up_nowhere(byte: bytes, outcome: Outcome) -> None:
    splitter = Splitter()
    for _ in range(1000):
        assert all(isinstance(piece, Noise) for piece in splitter.feed(byte * 100))
        assert len(splitter._held) < 5000
    found = [piece.frame for piece in splitter.feed(b"\0" + stuff(sealed())) if not isinstance(piece, Noise)]
    assert found == [sealed()]
    outcome("100 KB of 0x00 or 0xFF on the line", end="host", tried=1, what="streams", result="the next frame is found")


def damaged(frame: bytes, rng: random.Random) -> bytes:
    """A serial line's faults: a bit or a burst flipped, bytes lost or doubled, two frames spliced."""
    at = int(rng.random() * len(frame))
    fault = int(rng.random() * 5)
    if fault == 0:
        return frame[:at] + bytes((frame[at] ^ 1 << int(rng.random() * 8),)) + frame[at + 1 :]
    if fault == 1:
        burst = rng.randbytes(4)
        return frame[:at] + burst + frame[at + 4 :]
    end = at + 1 + int(rng.random() * 4)
    if fault == 2:
        return frame[:at] + frame[end:]
    if fault == 3:
        return frame[:end] + frame[at:]
    return frame[:at] + OTHER[at:]


OTHER = sealed(b"another payload of the session", counter=8)


@pytest.mark.parametrize("profile", ["psk", "plain"])
def test_none_of_a_million_damaged_frames_is_taken(profile: str, outcome: Outcome) -> None:
    """1 M per profile, about 5 s each. A splice of two frames may be one of them whole: that is no damage."""
    rng = random.Random(1)
    cipher = CIPHER if profile == "psk" else None
    make = sealed if profile == "psk" else plain
    genuine = [make(rng.randbytes(n), counter=n) for n in (0, 5, 20, 40)]
    whole = {*genuine, OTHER}
    taken = tried = 0
    while tried < 1_000_000:
        frame = damaged(genuine[tried & 3], rng)
        if frame in whole:
            continue
        tried += 1
        try:
            unseal(frame, from_host=True, session=SESSION, cipher=cipher)
        except FrameError:
            continue
        taken += 1
    assert taken == 0
    outcome("damaged frames", end="host", tried=tried, what="frames, psk and plain", result="0 taken")


def test_none_of_a_million_random_tags_is_taken(outcome: Outcome) -> None:
    """About 4 s."""
    body, randbytes = sealed()[:-16], random.Random(2).randbytes
    taken = 0
    for _ in range(1_000_000):
        try:
            unseal(body + randbytes(16), from_host=True, session=SESSION, cipher=CIPHER)
        except FrameError:
            continue
        taken += 1
    assert taken == 0
    outcome("forged tags", end="host", tried=1_000_000, what="tags", result="0 taken")
